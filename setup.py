"Packaging: every value is read from settings.ini, which nbdev reads too."

import re
from configparser import ConfigParser
from pathlib import Path

import setuptools

HERE = Path(__file__).resolve().parent
config = ConfigParser(delimiters=["="])
config.read(HERE / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

# Relative links of README.md lead nowhere on a package index: there they point at the repository.
readme = (HERE / "README.md").read_text(encoding="utf-8")
readme = re.sub(r"\]\((?![a-z]+:|#)", f"]({cfg['git_url']}/blob/{cfg['branch']}/", readme)

# Each `<name>_requirements` of settings.ini is the extra `<name>`.
extras = {key.rsplit("_", 1)[0]: value.split() for key, value in cfg.items() if key.endswith("_requirements")}
extras["all"] = [name for extra in ("torch", "notebook", "encoder", "parquet", "tensorboard") for name in extras[extra]]

setuptools.setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme,
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    project_urls={
        "Documentation": cfg["doc_host"] + cfg["doc_baseurl"],
        "Changes": cfg["git_url"] + "/blob/" + cfg["branch"] + "/CHANGELOG.md",
        "Issues": cfg["git_url"] + "/issues",
    },
    keywords=cfg["keywords"],
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: " + cfg["audience"],
        "Natural Language :: " + cfg["language"],
        "Programming Language :: Python :: 3",
        *[f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)],
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    packages=setuptools.find_packages(include=[cfg["lib_path"], cfg["lib_path"] + ".*"]),
    package_data={
        cfg["lib_path"]: ["py.typed", "weights/*.safetensors", "weights/*.md", "weights/*.json", "templates/*.jinja"],
        cfg["lib_path"] + ".notebook": ["*.js", "*.css"],  # what widgets run in the browser
        "": ["*.pyi"],  # what editors read of a package that loads its parts when they are asked for
    },
    python_requires=">=" + cfg["min_python"],
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={
        "console_scripts": [f"{cfg['lib_name']} = {cfg['lib_path']}.cli.main:main"],
        "nbdev": [f"{cfg['lib_path']} = {cfg['lib_path']}._modidx:d"],
    },
    zip_safe=False,
)
