"What a store must withstand: any array, other processes and their deaths, a full disk, a folder without rights."

import copy
import errno
import gc
import hashlib
import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from petroscope.io import store as room
from petroscope.io.files import content_key
from petroscope.io.store import Store

ROOT = Path(__file__).resolve().parent.parent
quick = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])

plain = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(endianness="?", sizes=(64, 128)),
    hnp.datetime64_dtypes(endianness="?"),
    hnp.timedelta64_dtypes(endianness="?"),
    hnp.byte_string_dtypes(min_len=1),
    hnp.unicode_string_dtypes(min_len=1),
)
anything = hnp.arrays(plain, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
views = st.sampled_from(
    [
        lambda a: a,
        np.asfortranarray,
        lambda a: a.T,
        lambda a: a[::-1] if a.ndim else a,
        lambda a: a[..., ::2] if a.ndim else a,
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | hnp.arrays(hnp.unsigned_integer_dtypes(), hnp.array_shapes(max_dims=2, min_side=0, max_side=3)),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


def never():
    raise AssertionError("must not be built")


def photo(seed=0, shape=(600, 900, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def python(code, *argv, **options):
    "A process of its own that runs `code`."
    command = [sys.executable, "-B", "-c", code, *map(str, argv)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options)


def sound(store, key):
    "The arrays of an entry that must be there, with no word of warning."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return store.arrays(key, never)


@quick
@given(made=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), anything, max_size=4), view=views)
def test_arrays_come_back_exactly(tmp_path, made, view):
    made = {name: view(array) for name, array in made.items()}
    store = Store(tmp_path)
    store.clear()
    for back in (store.arrays("k", lambda: made), sound(store, "k"), sound(pickle.loads(pickle.dumps(store)), "k")):
        assert list(back) == list(made)
        for name, array in made.items():
            assert type(back[name]) is np.ndarray and not back[name].flags.writeable
            assert (back[name].dtype, back[name].dtype.str) == (array.dtype, array.dtype.str)
            assert back[name].shape == array.shape and back[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 2**20 + 4097, 5_000_003])
def test_sizes_around_the_sample(tmp_path, size):
    made = {"bytes": photo(1, (size,)), "after": np.arange(5)}
    store = Store(tmp_path)
    store.arrays("k", lambda: made)
    for name, array in sound(store, "k").items():
        np.testing.assert_array_equal(array, made[name])
    spans = room._spans(size)
    assert spans[0][0] == 0 and sum(spans[-1]) == size and sum(length for _, length in spans) <= 2**20
    path = tmp_path / "k.entry" / "0.npy"
    whole = path.read_bytes()
    start = whole.index(made["bytes"][:64].tobytes())
    for place in (0, start, start + size - 1):  # the first and the last byte are always in the sample
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.warns(UserWarning, match="the file of 'bytes' is missing, cut off or changed"):
            store.arrays("k", lambda: made)
        assert path.read_bytes() == whole


@quick
@given(data=st.data())
def test_any_changed_byte_and_any_cut_is_noticed(tmp_path, data):
    made = {"a": np.arange(10), "b": np.array(["Gl", "Py"])}
    store = Store(tmp_path)
    store.arrays("k", lambda: made)
    entry = tmp_path / "k.entry"
    path = entry / data.draw(st.sampled_from(sorted(os.listdir(entry))))
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        spoiled = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        spoiled = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    path.write_bytes(spoiled)
    with pytest.warns(UserWarning) as said:
        back = store.arrays("k", lambda: made)
    assert len(said) == 1 and str(said[0].message).startswith(f"{entry}: ") and said[0].filename == __file__
    assert path.read_bytes() == whole and back["b"].tolist() == ["Gl", "Py"]


DAMAGE = {
    "empty": ("0.npy", lambda whole: b"", "the file of 'image' is missing, cut off or changed"),
    "foreign": ("0.npy", lambda whole: b"PK" + whole[2:], "the file of 'image' is missing, cut off or changed"),
    "cut": ("0.npy", lambda whole: whole[:-9], "the file of 'image' is missing, cut off or changed"),
    "longer": ("0.npy", lambda whole: whole + b"more", "the file of 'image' is missing, cut off or changed"),
    "gone": ("0.npy", None, "the file of 'image' is missing, cut off or changed"),
    "no record": ("record.json", None, "its record is missing"),
    "record of zeros": ("record.json", lambda whole: bytes(500), "its record is cut off or changed"),
    "list": ("record.json", lambda whole: b"[]", "its record is cut off or changed"),
    "no text": ("record.json", lambda whole: b"\xff" + whole, "its record is cut off or changed"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_said_of_damage(tmp_path, kind):
    store, entry = Store(tmp_path), tmp_path / "k.entry"
    made = {"image": photo(4, (1024, 1366, 3))}
    store.arrays("k", lambda: made)
    name, spoil, reason = DAMAGE[kind]
    whole = (entry / name).read_bytes()
    (entry / name).unlink()
    if spoil:
        (entry / name).write_bytes(spoil(whole))
    with pytest.warns(UserWarning) as said:
        np.testing.assert_array_equal(store.arrays("k", lambda: made)["image"], made["image"])
    assert [str(w.message) for w in said] == [
        f"{entry}: these stored arrays cannot be used: {reason}; making them again"
    ]
    assert (entry / name).read_bytes() == whole and os.listdir(tmp_path) == ["k.entry"]


def test_files_of_the_former_format_are_no_entries(tmp_path):
    (tmp_path / "k.arrays").write_bytes(b"\x93petro\r\n")
    store = Store(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.arrays("k", lambda: {"a": np.arange(3)})["a"].tolist() == [0, 1, 2]
    store.clear()
    assert os.listdir(tmp_path) == ["k.arrays"] and len(store) == 0


def test_an_entry_of_another_key(tmp_path):
    store = Store(tmp_path)
    store.arrays("one", lambda: {"a": np.arange(3)})
    os.rename(tmp_path / "one.entry", tmp_path / "two.entry")
    with pytest.warns(UserWarning, match="it belongs to the key one; making them again"):
        store.arrays("two", lambda: {"a": np.arange(4)})
    assert list(sound(store, "two")) == ["a"]


def test_what_bad_calls_are_told(tmp_path):
    store = Store(tmp_path)
    for key in ("../key", "", "A", "k" * 101, ".k", "k\n", 7, None):
        with pytest.raises(ValueError, match="expected a key as content_key gives it"):
            store.arrays(key, never)
    for made, told in (
        (photo(), "must return a dict of arrays by name, got ndarray"),
        ({1: photo()}, "must return arrays under names that are str, got the name 1"),
        ({"a": [1]}, "must return arrays, got list for 'a'"),
    ):
        with pytest.raises(TypeError, match=f"build\\(\\) {told}"):
            store.arrays("k", lambda made=made: made)
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    for folder, reason in ((tmp_path / "file", "it is a file"), (tmp_path / "file" / "cache", "not a directory")):
        with pytest.raises(OSError) as failure:
            Store(folder)
        assert str(failure.value).endswith(f"{folder}: cannot keep arrays here: {reason}; choose another cache folder")


@pytest.mark.parametrize("size", [8, 10**5])
def test_an_entry_that_holds_addresses_is_refused(tmp_path, size):
    "A file of objects would make numpy follow pointers that it holds."
    store = Store(tmp_path)
    store.arrays("k", lambda: {"a": np.arange(size, dtype=np.int64)})
    entry = tmp_path / "k.entry"
    whole = (entry / "0.npy").read_bytes()
    (entry / "0.npy").write_bytes(whole.replace(b"<i8", b"|O8"))
    files = {"a": {"file": "0.npy", **room._measure(entry / "0.npy")}}
    (entry / "record.json").write_text(room._record_text("k", files))
    with pytest.warns(UserWarning, match="it holds elements of object"):
        assert store.arrays("k", lambda: {"a": np.arange(3)})["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "array",
    [
        np.array([None]),
        np.zeros(2, [("x", "f4"), ("y", "i2")]),
        np.ma.array([1, 2], mask=[0, 1]),
        np.zeros(2, "V4"),
    ],
    ids=["objects", "records", "masked", "void"],
)
def test_arrays_that_cannot_be_kept(tmp_path, array):
    with pytest.raises(TypeError, match="expected an array of numbers"):
        Store(tmp_path).arrays("k", lambda: {"a": array})
    with pytest.raises(TypeError, match="expected an array of numbers"):
        content_key(array)
    assert os.listdir(tmp_path) == []


def test_a_build_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(AssertionError, match="must not be built"):
        Store(tmp_path).arrays("k", never)
    assert os.listdir(tmp_path) == []


def alike(a, b):
    "Whether two parts are the same content: of one type, and equal down to the last item and the sign of zero."
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and repr(a) == repr(b)


@settings(max_examples=150)
@given(first=st.lists(values, max_size=3), second=st.lists(values, max_size=3))
def test_keys_agree_exactly_where_the_parts_do(first, second):
    assert len(content_key(*first)) == 32
    assert content_key(*first) == content_key(*copy.deepcopy(first))
    assert (content_key(*first) == content_key(*second)) == alike(first, second)


@quick
@given(array=anything, view=views)
def test_the_key_of_an_array_is_that_of_its_values(array, view):
    seen = view(array)
    assert content_key(seen) == content_key(np.array(seen, order="C")) == content_key(np.array(seen, order="F"))
    assert content_key(seen) != content_key(seen[None])


def test_a_key_by_hand():
    "The bytes that enter a key, put together without the code under test."

    def part(kind, content):
        return kind + struct.pack("<Q", len(content)) + content

    def many(*parts):
        return b"[" + struct.pack("<Q", len(parts)) + b"".join(parts)

    pixels = np.arange(6, dtype=">u2").reshape(2, 3)
    array = b"a" + many(part(b"s", b">u2"), part(b"i", b"0x2"), part(b"i", b"0x3")) + part(b"", pixels.tobytes())
    parts = [part(b"i", b"-0x5"), part(b"f", struct.pack("<d", 0.5)), part(b"t", b"\1"), part(b"n", b""), array]
    expected = hashlib.blake2b(many(*parts, many(part(b"b", b"x"))), digest_size=16).hexdigest()
    assert content_key(-5, 0.5, True, None, pixels, [b"x"]) == expected


def test_a_path_is_its_content(tmp_path):
    one, two = tmp_path / "один.png", tmp_path / "two"
    one.write_bytes(bytes(700_000))
    two.write_bytes(bytes(700_000))
    os.utime(two, (0, 0))
    assert content_key(one) == content_key(two) == content_key([two][0])
    assert content_key(one) not in (content_key(str(one)), content_key(bytes(700_000)))
    two.write_bytes(bytes(699_999) + b"\1")
    assert content_key(one) != content_key(two)
    with pytest.raises(FileNotFoundError, match="expected a file to make a key of, it cannot be read: no such file"):
        content_key(tmp_path / "missing")


@pytest.mark.parametrize("part", [{1: 2}, {1}, object(), np.int64(1), bytearray(b"a"), print, range(3)])
def test_other_types_make_no_key(part):
    for parts in ([part], [[1, (part,)]]):
        with pytest.raises(TypeError, match=f"got {type(part).__name__}: "):
            content_key(*parts)


BUILD = """
import sys, time, numpy as np
from pathlib import Path
from petroscope.io.store import Store
folder, number = Path(sys.argv[1]), int(sys.argv[2])
store = Store(folder / "cache")
(folder / f"ready{number}").touch()
while not (folder / "go").exists(): time.sleep(0.0005)
def build(entry):
    time.sleep(0.002)
    return {"image": np.full((200, 300, 3), number, np.uint8), "rows": np.arange(50) * entry}
kept = [(entry, store.arrays(f"e{entry}", lambda: build(entry))) for entry in range(25)]
for entry, arrays in kept:
    assert arrays["image"].min() == arrays["image"].max() and arrays["rows"][-1] == 49 * entry
print("sound")
"""


def test_two_processes_build_the_same_entries_at_once(tmp_path):
    workers = [python(BUILD, tmp_path, number) for number in (1, 2)]
    while not all((tmp_path / f"ready{number}").exists() for number in (1, 2)):
        assert all(worker.poll() is None for worker in workers), workers[0].stderr.read()
        time.sleep(0.005)
    (tmp_path / "go").touch()
    for worker in workers:
        out, error = worker.communicate(timeout=60)
        assert (out, error, worker.returncode) == ("sound\n", "", 0)
    store = Store(tmp_path / "cache")
    assert len(store) == 25 and len(os.listdir(store.folder)) == 25
    for entry in range(25):
        assert sound(store, f"e{entry}")["rows"].tolist() == (np.arange(50) * entry).tolist()


def test_whoever_reads_the_old_entry_keeps_it(tmp_path):
    store = Store(tmp_path)
    old = store.arrays("k", lambda: {"a": photo(1)})["a"]
    store.clear()
    store.arrays("k", lambda: {"a": photo(2)})
    np.testing.assert_array_equal(old, photo(1))
    store.drop_pages()
    np.testing.assert_array_equal(old, photo(1))
    np.testing.assert_array_equal(sound(store, "k")["a"], photo(2))


def test_threads_share_a_store(tmp_path, in_threads):
    store = Store(tmp_path)

    def work():
        for entry in range(40):
            assert store.arrays(f"e{entry % 10}", lambda: {"a": photo(3)})["a"].shape == (600, 900, 3)
            store.drop_pages()

    in_threads(work)
    assert len(store) == 10


HANG = """
import os, sys, time, numpy as np
from petroscope.io.store import Store
store = Store(sys.argv[1])
store.arrays("whole", lambda: {"a": np.arange(1000)})
def hang(descriptor):
    print("written", flush=True)
    time.sleep(60)
os.fsync = hang
store.arrays("half", lambda: {"a": np.arange(10**6)})
"""
LOOP = """
import sys, numpy as np
from petroscope.io.store import Store
store = Store(sys.argv[1])
print("started", flush=True)
for entry in range(10**6):
    store.arrays(f"e{entry % 40}", lambda: {"a": np.full((700, 900, 3), entry % 40, np.uint8)})
    if entry % 40 == 39: store.clear()
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX")
def test_a_process_that_is_killed_before_it_renames(tmp_path):
    worker = python(HANG, tmp_path)
    assert worker.stdout.readline() == "written\n"
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    store = Store(tmp_path)
    left = [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert len(left) == 1 and (tmp_path / left[0] / "0.npy").stat().st_size > 8 * 10**6
    assert len(store) == 1 and store.size < 10**4  # what is left does not count
    assert sound(store, "whole")["a"][-1] == 999
    assert store.arrays("half", lambda: {"a": np.arange(10)})["a"][-1] == 9
    store.clear()
    assert os.listdir(tmp_path) == left  # another process could still be writing it
    os.utime(tmp_path / left[0], (0, time.time() - 25 * 3600))
    Store(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX")
@pytest.mark.parametrize("delay", [0.01, 0.0237, 0.051, 0.0773])
def test_a_process_that_is_killed_at_any_time(tmp_path, delay):
    worker = python(LOOP, tmp_path)
    assert worker.stdout.readline() == "started\n"
    time.sleep(delay)
    worker.kill()
    worker.communicate()
    store = Store(tmp_path)
    for path in tmp_path.glob("e*.entry"):
        array = sound(store, path.stem)["a"]
        assert (array == int(path.stem[1:])).all()


FULL = """
import resource, signal, sys, numpy as np
from petroscope.io.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
try: Store(sys.argv[1]).arrays("k", lambda: {"a": np.ones((2000, 2000), np.uint8)})
except OSError as error: print(error)
"""


def test_a_disk_that_takes_no_more(tmp_path):
    "The real thing in a process of its own: the system refuses to write more than 1 MB."
    pytest.importorskip("resource")
    out, error = python(FULL, tmp_path).communicate(timeout=60)
    assert error == "" and out == (
        f"[Errno {errno.EFBIG}] {tmp_path / 'k.entry'}: could not be written: file too large; the disk, or a limit "
        "set on this computer, refuses files of this size\n"
    )
    assert os.listdir(tmp_path) == []


def test_a_full_disk(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as failure:
        store.arrays("k", lambda: {"a": photo()})
    assert str(failure.value) == (
        f"[Errno {errno.ENOSPC}] {tmp_path / 'k.entry'}: could not be written: no space left on device; "
        "free some space or name another disk"
    )
    assert os.listdir(tmp_path) == []
    # Another process had more luck: what it made is as good.
    monkeypatch.undo()
    other = Store(tmp_path)

    def meanwhile():
        other.arrays("k", lambda: {"a": np.arange(4)})
        monkeypatch.setattr(os, "fsync", full)
        return {"a": np.arange(4)}

    assert store.arrays("k", meanwhile)["a"].tolist() == [0, 1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights of POSIX")
def test_a_folder_that_may_not_be_written_to(tmp_path):
    with tempfile.TemporaryDirectory() as name:
        store = Store(name)
        os.chmod(name, 0o555)
        try:
            # In a process of its own: os.access asks for the real user, who may be root here.
            code = (
                "import os, sys; from petroscope.io.store import Store\n"
                "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
                "for folder in sys.argv[1:]:\n"
                "    try: Store(folder)\n"
                "    except PermissionError as error: print(error)\n"
            )
            out, error = python(code, name, Path(name) / "new").communicate(timeout=60)
        finally:
            os.chmod(name, 0o755)
        said = "cannot keep arrays here: permission denied; choose another cache folder"
        assert error == ""
        assert out.splitlines() == [f"[Errno {errno.EACCES}] {p}: {said}" for p in (name, Path(name) / "new")]
        assert len(store) == 0


def test_a_file_in_the_place_of_an_entry(tmp_path):
    (tmp_path / "k.entry").write_text("mine")
    with pytest.warns(UserWarning, match="cannot be used"), pytest.raises(OSError, match="could not be written"):
        Store(tmp_path).arrays("k", lambda: {"a": photo()})
    assert (tmp_path / "k.entry").read_text() == "mine"


def test_too_many_open_files_are_no_damage(tmp_path):
    resource = pytest.importorskip("resource")
    store = Store(tmp_path)
    store.arrays("k", lambda: {"a": np.arange(10**5)})
    before = (tmp_path / "k.entry").stat()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[1]), limits[1]))
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE
        with pytest.raises(OSError, match="too many files are open; raise the limit with `ulimit -n`"):
            store.arrays("k", never)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (tmp_path / "k.entry").stat().st_ino == before.st_ino
    assert sound(store, "k")["a"][-1] == 10**5 - 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the pages of a process")
def test_memory_stays_within_a_budget(tmp_path):
    "While 120 MB are read, no more than the pages since the last call of drop_pages are held."

    def file_pages():
        lines = Path("/proc/self/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("RssFile")) / 1000

    store = Store(tmp_path)
    kept = [store.arrays(f"e{i}", lambda: {"a": np.full((2000, 2000, 3), 7, np.uint8)})["a"] for i in range(10)]
    store.drop_pages()
    base = file_pages()
    for array in kept:  # opening and checking does not touch the map
        assert (array.base.closed, array[0, 0, 0]) == (False, 7)
    assert file_pages() - base < 5
    highest = 0.0
    for array in kept:
        assert int(array.sum()) == 7 * array.size
        highest = max(highest, file_pages() - base)
        store.drop_pages()
    assert 11 < highest < 20 and file_pages() - base < 3
    assert all(array[-1, -1, -1] == 7 for array in kept)


def test_maps_are_closed_when_nobody_uses_them(tmp_path):
    store = Store(tmp_path)
    part = store.arrays("k", lambda: {"a": photo(), "b": photo()})["a"][100:200, ::2]
    gc.collect()
    assert len(store._maps) == 1 and part.sum() == photo()[100:200, ::2].sum()
    del part
    gc.collect()
    assert len(store._maps) == 0
    store.drop_pages()


def test_a_system_without_madvise(tmp_path, monkeypatch):
    monkeypatch.delattr(room.mmap, "MADV_DONTNEED", raising=False)
    store = Store(tmp_path)
    array = store.arrays("k", lambda: {"a": np.arange(9)})["a"]
    store.drop_pages()
    assert array.sum() == 36


def touch(store, folder):
    "In a child process: use a store that belongs to the parent, then end as a process does."
    assert store.arrays("k", never)["a"].sum() == 36
    del store
    gc.collect()


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_temporary_store_is_removed_by_its_owner_only(method):
    store = Store.temporary()
    folder = store.folder
    store.arrays("k", lambda: {"a": np.arange(9)})
    worker = multiprocessing.get_context(method).Process(target=touch, args=(store, folder))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0 and folder.is_dir()
    assert sound(store, "k")["a"].sum() == 36
    del store
    gc.collect()
    assert not folder.exists()


def test_a_temporary_store_is_removed_at_the_end_and_not_by_a_fork():
    fork = "pid = os.fork()\nif pid == 0: sys.exit()\nos.waitpid(pid, 0)\n" if hasattr(os, "fork") else ""
    code = (
        "import os, sys, numpy as np; from petroscope.io.store import Store\nstore = Store.temporary()\n"
        'array = store.arrays("k", lambda: {"a": np.arange(9)})["a"]\n'
        f"{fork}print(store.folder, store.folder.is_dir(), len(store), array.sum())"
    )
    out, error = python(code).communicate(timeout=60)
    folder, *rest = out.split()
    assert (rest, error) == (["True", "1", "36"], "") and not Path(folder).exists()


def test_a_store_stays_where_it_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("cache/of mine")
    store.arrays("k", lambda: {"a": np.arange(9)})
    monkeypatch.chdir(ROOT)
    assert len(store) == 1 and store.folder == Path(os.path.abspath(tmp_path / "cache/of mine"))
    assert repr(store) == f"Store({str(store.folder)!r}: 1 entry, 0.0 MB)"
