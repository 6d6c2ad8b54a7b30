// The client side of petroscope's Viewer: a photo as tiles, a layer of class codes over it, marks, and a brush.
// Tiles come from Python when they are looked at; zoom, pan, opacity and the choice of classes never ask Python.

const MOST_TILES = 240; // of a layer, kept decoded
const IN_FLIGHT = 6; // requests under way at a time
const PATIENCE = 20000; // ms until a request counts as lost
const VOID = 255;
const HINT = 1600; // ms that a hint is seen
const COMMAND = /mac|iphone|ipad/i.test(navigator.platform) ? "\u2318" : "Ctrl";
const ICONS = {
  pan: "M8 1v14M1 8h14M8 1 6 3.2M8 1l2 2.2M8 15l-2-2.2M8 15l2-2.2M1 8l2.2-2M1 8l2.2 2M15 8l-2.2-2M15 8l-2.2 2",
  brush: "M14 2 7 9M7 9c-2-.6-3.4.5-3.6 2-.2 1.5-.9 2.4-2.4 2.6 2 1.3 6.6 1 7-2 .1-1-.3-2-1-2.6z",
  fill: "M7 2.5 2.5 7 8 12.5 12.5 8zM7 2.5 5.5 1M2.5 7h9.5M14 10.5c.9 1.3 1.3 2 1.3 2.7a1.3 1.3 0 0 1-2.6 0c0-.7.4-1.4 1.3-2.7z",
  undo: "M5.5 3 2.5 6l3 3M2.5 6h6.5a4 4 0 0 1 0 8H6",
  redo: "M10.5 3l3 3-3 3M13.5 6H7a4 4 0 0 0 0 8h3",
  save: "M2.5 2.5h9l2 2v9h-11zM5 2.5v4h5.5v-4M5 13.5V10h6v3.5",
  in: "M8 3v10M3 8h10",
  out: "M3 8h10",
  fit: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
};

function element(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const rgb = (color) => `rgb(${color.join(",")})`;

// A length that is known to `step` micrometres, with as many digits as that tells.
function micrometres(um, step = um / 100) {
  const [scale, unit] = Math.abs(um) >= 1e4 ? [1e3, "mm"] : [1, "µm"];
  const digits = clamp(Math.ceil(-Math.log10(step / scale)), 0, 4);
  return `${(um / scale).toFixed(digits)} ${unit}`;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// One pyramid: what was fetched of it, and what its pixels look like.
class Layer {
  constructor(about) {
    this.tiles = new Map();
    this.version = about.version;
    this.update(about);
    if (about.top) this.put({ level: about.levels - 1, row: 0, col: 0, version: about.version }, about.top);
  }

  update(about) {
    this.about = about;
    this.colors = new Map((about.classes || []).map((c) => [c.code, c]));
  }

  static name(level, row, col) {
    return `${level}/${row}/${col}`;
  }

  get(level, row, col) {
    const name = Layer.name(level, row, col);
    const tile = this.tiles.get(name);
    if (tile) {
      this.tiles.delete(name); // the last in the map is the last used
      this.tiles.set(name, tile);
    }
    return tile;
  }

  // Height and width of a tile in pixels of its level.
  size(level, row, col) {
    const { tile, height, width } = this.about;
    const step = 2 ** level;
    return [Math.min(tile, Math.ceil(height / step) - row * tile), Math.min(tile, Math.ceil(width / step) - col * tile)];
  }

  async put(place, bytes) {
    const [height, width] = this.size(place.level, place.row, place.col);
    const made = { height, width, version: place.version, level: place.level, row: place.row, col: place.col };
    if (this.about.codes) made.codes = await inflate(bytes);
    else made.picture = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
    const name = Layer.name(place.level, place.row, place.col);
    const before = this.tiles.get(name);
    if (before && before.version > made.version) return;
    this.tiles.delete(name);
    this.tiles.set(name, made);
    for (const [old, tile] of this.tiles) {
      if (this.tiles.size <= MOST_TILES) break;
      if (tile.level < this.about.levels - 1) this.tiles.delete(old); // the whole at a glance stays
    }
  }

  // What was edited must be fetched again; until then the old tile is shown.
  outdate([top, left, bottom, right], version) {
    this.version = version;
    for (const tile of this.tiles.values()) {
      const span = this.about.tile * 2 ** tile.level;
      const apart = top >= (tile.row + 1) * span || bottom <= tile.row * span;
      if (!apart && left < (tile.col + 1) * span && right > tile.col * span) tile.stale = version;
    }
  }

  // Colours of the 256 codes as 32-bit words, transparent where nothing shall be seen.
  palette(hidden) {
    const name = hidden.join(",");
    if (this.paletteName === name && this.words) return this.words;
    const bytes = new Uint8ClampedArray(1024);
    if (this.about.ramp) bytes.set(new Uint8Array(this.about.ramp.buffer || this.about.ramp, this.about.ramp.byteOffset || 0, 1024));
    for (const mineral of this.colors.values()) {
      if (!hidden.includes(mineral.code)) bytes.set([...mineral.color, 255], 4 * mineral.code);
    }
    this.paletteName = name;
    this.words = new Uint32Array(bytes.buffer);
    return this.words;
  }

  // What is drawn of a tile: a picture as it is, codes in their colours of now.
  shown(tile, hidden) {
    if (!tile.codes) return tile.picture;
    const words = this.palette(hidden);
    if (tile.painted !== words) {
      if (!tile.canvas) {
        tile.canvas = element("canvas", { width: tile.width, height: tile.height });
        tile.data = new ImageData(tile.width, tile.height);
      }
      const out = new Uint32Array(tile.data.data.buffer);
      for (let i = 0; i < out.length; i++) out[i] = words[tile.codes[i]];
      tile.canvas.getContext("2d").putImageData(tile.data, 0, 0);
      tile.painted = words;
    }
    return tile.canvas;
  }

  codeAt(row, col, level) {
    for (let l = level; l < this.about.levels; l++) {
      const [y, x] = [Math.floor(row / 2 ** l), Math.floor(col / 2 ** l)];
      const tile = this.tiles.get(Layer.name(l, Math.floor(y / this.about.tile), Math.floor(x / this.about.tile)));
      if (tile?.codes) return tile.codes[(y % this.about.tile) * tile.width + (x % this.about.tile)];
    }
    return undefined;
  }
}

class View {
  constructor(model, el) {
    this.model = model;
    this.id = Math.random().toString(36).slice(2);
    this.layers = new Map();
    this.asked = new Map();
    this.strokes = [];
    this.held = new Map();
    this.position = null; // centre, in pixels of the photo, and CSS pixels per pixel of the photo
    this.build(el);
    this.listen();
    this.takeLayers();
    this.buildControls();
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.stage);
    this.resize();
  }

  // ---- what there is on the page -------------------------------------------------------------------------------

  build(el) {
    this.canvas = element("canvas", {
      tabindex: 0,
      role: "img",
      "aria-label": `${this.model.get("title") || "photo"}; arrows move, + and - zoom, 0 shows all, Escape leaves`,
    });
    this.hintBox = element("div", { class: "petroscope-hint", "aria-hidden": "true", hidden: true });
    this.stage = element("div", { class: "petroscope-stage" }, this.canvas, this.hintBox);
    this.bar = element("div", { class: "petroscope-bar", role: "toolbar", "aria-label": "viewer" });
    this.legend = element("div", { class: "petroscope-legend", role: "group", "aria-label": "legend" });
    this.readout = element("span", { class: "petroscope-readout" });
    this.status = element("span", { class: "petroscope-status", role: "status", "aria-live": "polite" });
    const foot = element("div", { class: "petroscope-foot" }, this.status, this.readout);
    const middle = element("div", { class: "petroscope-middle" }, this.stage, this.legend);
    this.root = element("div", { class: "petroscope-viewer", "data-lm-suppress-shortcuts": "true" }, this.bar, middle, foot);
    el.append(this.root);
  }

  button(name, label, action, options = {}) {
    const content = ICONS[name] ? icon(name) : name;
    const made = element("button", { type: "button", "aria-label": label, title: options.hint || label, onclick: action }, content);
    if (options.pressed !== undefined) made.setAttribute("aria-pressed", String(options.pressed));
    return made;
  }

  group(label, ...nodes) {
    return element("div", { class: "petroscope-group", role: "group", "aria-label": label }, ...nodes);
  }

  slider(label, low, high, step, value, action) {
    const input = element("input", { type: "range", min: low, max: high, step, "aria-label": label, title: label });
    input.value = value;
    input.addEventListener("input", () => action(Number(input.value)));
    return input;
  }

  buildControls() {
    const m = this.model;
    this.bar.replaceChildren(
      this.group(
        "where to look",
        this.button("out", "zoom out", () => this.zoomBy(1 / 1.6), { hint: "zoom out (-)" }),
        this.button("in", "zoom in", () => this.zoomBy(1.6), { hint: `zoom in (+), or turn the wheel once the photo was clicked, or with ${COMMAND}` }),
        this.button("fit", "fit", () => this.fit(), { hint: "whole picture (0)" }),
        this.button("1:1", "full size", () => this.zoomTo(1 / devicePixelRatio), { hint: "one pixel of the photo per pixel of the screen (1)" }),
      ),
    );
    this.buildLayerChoice();
    if (m.get("labels").length) {
      const name = element("span", { class: "petroscope-caption", text: "opacity" });
      const slider = this.slider("opacity", 0, 1, 0.01, m.get("opacity"), (x) => this.set("opacity", x));
      this.opacity = slider;
      this.bar.append(this.group("opacity of the layer", name, slider));
    }
    if (m.get("editable")) this.buildEditing();
    this.buildLegend();
    this.status.textContent = m.get("status");
  }

  buildLayerChoice() {
    const grounds = this.model.get("pictures").map((p) => p.name);
    const labels = this.model.get("labels").map((l) => l.name);
    if (grounds.length > 1) {
      const choice = grounds.map((name) =>
        this.button(name, `picture ${name}`, () => this.set("shown", name), { pressed: name === this.model.get("shown") }),
      );
      this.bar.append(this.group("pictures", ...choice));
    }
    if (labels.length > 1 || (labels.length && grounds.length === 1 && !this.model.get("editable"))) {
      const choice = ["", ...labels].map((name) =>
        this.button(name || "photo", `layer ${name || "photo"}`, () => this.set("label", name), {
          pressed: name === this.model.get("label"),
        }),
      );
      this.bar.append(this.group("layers", ...choice));
    }
  }

  buildEditing() {
    const tool = this.model.get("tool");
    const hints = { pan: "move the photo (P), or hold the space bar", brush: "brush (B)", fill: "fill a grain (F)" };
    const tools = Object.keys(hints).map((name) =>
      this.button(name, name, () => this.set("tool", name), { pressed: name === tool, hint: hints[name] }),
    );
    const size = this.model.get("brush_size");
    this.sizeText = element("span", { class: "petroscope-caption petroscope-size", text: this.brushText() });
    this.sizeSlider = this.slider("brush size", 1, 200, 1, size, (x) => this.set("brush_size", x));
    this.undo = this.button("undo", "undo", () => this.send({ type: "undo" }), { hint: "undo (Ctrl+Z)" });
    this.redo = this.button("redo", "redo", () => this.send({ type: "redo" }), { hint: "redo (Ctrl+Shift+Z)" });
    const keep = this.button("save", "save", () => this.send({ type: "save" }), { hint: "save the mask (Ctrl+S)" });
    this.bar.append(
      this.group("tools", ...tools),
      this.group("width of the brush", this.sizeSlider, this.sizeText),
      this.group("history", this.undo, this.redo, keep),
    );
    this.updateHistory();
  }

  brushText() {
    const [size, um] = [this.model.get("brush_size"), this.model.get("pixel_size_um")];
    return um ? `${size} px · ${Number((size * um).toPrecision(2))} µm` : `${size} px`;
  }

  updateHistory() {
    if (!this.undo) return;
    const [back, forth] = this.model.get("history");
    this.undo.disabled = !back;
    this.redo.disabled = !forth;
  }

  buildLegend() {
    const layer = this.labelLayer();
    const about = layer?.about;
    this.legend.replaceChildren();
    this.legend.hidden = !about || (!about.ramp && !about.classes.length);
    if (this.legend.hidden) return;
    if (about.ramp) {
      const bytes = new Uint8Array(about.ramp.buffer || about.ramp, about.ramp.byteOffset || 0, 1024);
      const stops = [8, 64, 128, 192, 255].map((i) => rgb([...bytes.subarray(4 * i, 4 * i + 3)]));
      const strip = element("div", { class: "petroscope-ramp", style: `background: linear-gradient(to top, ${stops.join(",")})` });
      const ends = element("div", { class: "petroscope-ends" }, element("span", { text: about.range[1] }), element("span", { text: about.range[0] }));
      this.legend.append(element("div", { class: "petroscope-head", text: about.unit || about.name }), element("div", { class: "petroscope-scale" }, strip, ends));
      return;
    }
    const hidden = this.model.get("hidden");
    const codes = about.classes.map((c) => c.code);
    const some = codes.some((code) => hidden.includes(code));
    const all = this.button(some ? "all" : "none", "all classes on or off", () =>
      this.set("hidden", some ? hidden.filter((code) => !codes.includes(code)) : [...hidden, ...codes]),
    );
    const head = element("div", { class: "petroscope-head" }, element("span", { text: about.name }), all);
    this.legend.append(head, ...about.classes.map((c) => this.legendRow(c, hidden)));
  }

  legendRow(mineral, hidden) {
    const box = element("input", { type: "checkbox", "aria-label": `show ${mineral.name}`, title: `show ${mineral.name}; with Shift: nothing else` });
    box.checked = !hidden.includes(mineral.code);
    box.addEventListener("click", (event) => {
      const others = this.labelLayer().about.classes.map((c) => c.code).filter((c) => c !== mineral.code);
      const now = this.model.get("hidden");
      if (event.shiftKey) this.set("hidden", others);
      else this.set("hidden", box.checked ? now.filter((c) => c !== mineral.code) : [...now, mineral.code]);
    });
    const swatch = element("span", { class: "petroscope-swatch", style: `background: ${rgb(mineral.color)}` });
    const value = element("span", { class: "petroscope-value", text: mineral.value || "" });
    if (!this.model.get("editable")) {
      return element("label", { class: "petroscope-row" }, box, swatch, element("span", { class: "petroscope-name", text: mineral.name }), value);
    }
    const chosen = this.model.get("brush_code") === mineral.code;
    const paint = element(
      "button",
      { type: "button", class: "petroscope-name", "aria-label": `paint ${mineral.name}`, "aria-pressed": String(chosen), title: `paint ${mineral.name}` },
      swatch, element("span", { text: mineral.name }), value,
    );
    paint.addEventListener("click", () => {
      this.set("brush_code", mineral.code);
      if (this.model.get("tool") === "pan") this.set("tool", "brush");
    });
    return element("div", { class: "petroscope-row" }, box, paint);
  }

  // ---- what comes from Python ----------------------------------------------------------------------------------

  set(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  send(content) {
    this.model.send({ ...content, view: this.id });
  }

  listen() {
    this.handlers = [];
    const on = (names, action) => {
      for (const name of names.split(" ")) {
        this.model.on(name, action);
        this.handlers.push([name, action]);
      }
    };
    on("change:pictures change:labels", () => {
      this.takeLayers();
      this.buildControls();
      this.resize();
      this.redraw();
    });
    on("change:shown change:label change:tool change:editable", () => {
      this.keepingFocus(() => this.buildControls());
      this.redraw();
    });
    on("change:hidden change:brush_code", () => {
      this.keepingFocus(() => this.buildLegend());
      this.redraw();
    });
    on("change:opacity", () => {
      if (this.opacity) this.opacity.value = this.model.get("opacity");
      this.redraw();
    });
    on("change:brush_size", () => {
      if (this.sizeSlider) this.sizeSlider.value = this.model.get("brush_size");
      if (this.sizeText) this.sizeText.textContent = this.brushText();
      this.redraw();
    });
    on("change:pixel_size_um", () => {
      if (this.sizeText) this.sizeText.textContent = this.brushText();
      this.hover(this.pointer);
      this.redraw();
    });
    on("change:marks change:selected", () => this.redraw());
    on("change:history", () => this.updateHistory());
    on("change:status", () => (this.status.textContent = this.model.get("status")));
    on("change:height_px", () => this.resize());
    on("change:view", () => {
      const [row, col, zoom] = this.model.get("view");
      if (zoom <= 0) this.fit(true);
      else if (!this.mine(row, col, zoom)) {
        this.fitted = false;
        this.moveTo({ row, col, zoom });
      }
    });
    on("msg:custom", (content, buffers) => this.receive(content, buffers));
    const canvas = this.canvas;
    canvas.addEventListener("pointerdown", (event) => this.pointerDown(event));
    canvas.addEventListener("pointermove", (event) => this.pointerMove(event));
    canvas.addEventListener("pointerup", (event) => this.pointerUp(event));
    canvas.addEventListener("pointercancel", (event) => this.pointerUp(event, true));
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("dblclick", (event) => this.model.get("tool") === "pan" && this.zoomBy(2, this.at(event)));
    this.root.addEventListener("keydown", (event) => this.keyDown(event));
    this.root.addEventListener("keyup", (event) => event.key === " " && this.holdSpace(false));
    canvas.addEventListener("blur", () => this.holdSpace(false));
    // Two fingers are the photo's; what one finger does, the style says (touch-action).
    canvas.addEventListener("touchstart", (event) => event.touches.length > 1 && event.preventDefault(), { passive: false });
    // A pinch on a touchpad: Safari has events of its own for it, all others turn the wheel with Ctrl.
    canvas.addEventListener("gesturestart", (event) => this.gesture(event, true), { passive: false });
    canvas.addEventListener("gesturechange", (event) => this.gesture(event), { passive: false });
    this.listenOutside();
  }

  // The wheel is the page's until the viewer is clicked or reached with Tab, and again once it is left.
  listenOutside() {
    const inside = (event) => event.composedPath().includes(this.root);
    const away = (event) => inside(event) || this.engage(false);
    this.root.addEventListener("focusin", () => this.engage(true));
    this.bar.addEventListener("pointerdown", () => this.engage(true)); // Safari gives a button no focus
    this.legend.addEventListener("pointerdown", () => this.engage(true));
    this.outside = [
      [document, "pointerdown", away],
      [document, "focusin", away],
      [document, "keydown", (event) => event.key === "Escape" && this.leave()],
      [window, "blur", () => this.engage(false)], // a click into another frame is told as no more than this
      // Who scrolls the page past the photo does not want to zoom it.
      [document, "wheel", (event) => inside(event) || (this.lastScroll = performance.now())],
    ];
    for (const [target, name, action] of this.outside) target.addEventListener(name, action, { capture: true, passive: true });
  }

  engage(engaged) {
    if (engaged === Boolean(this.engaged)) return;
    this.engaged = engaged;
    this.root.dataset.engaged = String(engaged);
    this.tellHint("");
  }

  leave() {
    if (!this.engaged) return;
    this.stroke = this.press = null;
    if (this.root.contains(document.activeElement)) document.activeElement.blur();
    this.engage(false);
    this.redraw();
  }

  tellHint(text) {
    clearTimeout(this.hinting);
    this.hintBox.hidden = !text;
    if (!text) return;
    this.hintBox.textContent = text;
    this.hinting = setTimeout(() => this.tellHint(""), HINT);
  }

  keepingFocus(action) {
    const label = this.root.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
    action();
    if (label) this.root.querySelector(`[aria-label="${CSS.escape(label)}"]`)?.focus({ preventScroll: true });
  }

  takeLayers() {
    const all = [...this.model.get("pictures"), ...this.model.get("labels")];
    const keys = new Set(all.map((about) => about.key));
    for (const key of this.layers.keys()) if (!keys.has(key)) this.layers.delete(key);
    for (const about of all) {
      const known = this.layers.get(about.key);
      if (known) known.update(about);
      else this.layers.set(about.key, new Layer(about));
    }
    const ground = this.ground()?.about;
    const size = ground ? `${ground.height}x${ground.width}` : "";
    if (this.size && size !== this.size) this.position = null; // another photo: show all of it
    this.size = size;
    if (!this.position && this.width) this.fit(true);
    setTimeout(() => this.redraw(), 0);
    setTimeout(() => this.redraw(), 60); // the tiles that came along are decoded by then
  }

  ground() {
    const about = this.model.get("pictures").find((p) => p.name === this.model.get("shown"));
    return about && this.layers.get(about.key);
  }

  labelLayer() {
    const about = this.model.get("labels").find((l) => l.name === this.model.get("label"));
    return about && this.layers.get(about.key);
  }

  async receive(content, buffers) {
    const layer = this.layers.get(content.layer);
    if (content.type === "tile" && content.view === this.id) {
      this.asked.delete(`${content.layer}:${Layer.name(content.level, content.row, content.col)}`);
      if (layer && buffers.length) await layer.put(content, buffers[0]);
      this.redraw();
    } else if (content.type === "refused") {
      this.strokes = this.strokes.filter((stroke) => stroke.id !== content.done);
      this.redraw();
    } else if (content.type === "stale") {
      layer?.outdate(content.box, content.version);
      for (const stroke of this.strokes) if (stroke.id === content.done) stroke.version = content.version;
      if (layer && content.values) {
        for (const mineral of layer.about.classes) mineral.value = content.values[mineral.code] ?? "";
        this.keepingFocus(() => this.buildLegend());
      }
      this.redraw();
    }
  }

  // A stroke is drawn by itself until the tiles that hold it are there.
  settleStrokes() {
    const layer = this.labelLayer();
    const waiting = layer && this.wanted.some((w) => w.layer === layer && layer.get(w.level, w.row, w.col)?.stale);
    const left = waiting ? this.strokes : this.strokes.filter((stroke) => stroke.version === undefined);
    if (left.length !== this.strokes.length) this.redraw();
    this.strokes = left;
  }

  // ---- where we look -------------------------------------------------------------------------------------------

  resize() {
    // On a narrow page the whole photo needs less height than there may be.
    const about = this.ground()?.about;
    const needed = about ? (this.stage.clientWidth * about.height) / about.width : Infinity;
    const height = Math.round(Math.min(this.model.get("height_px"), Math.max(200, needed)));
    this.stage.style.height = `${height}px`;
    this.legend.style.maxHeight = `${Math.max(height, 360)}px`;
    this.width = this.stage.clientWidth;
    this.height = this.stage.clientHeight;
    if (!this.width) return;
    this.ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
    if (!this.position) {
      const [row, col, zoom] = this.model.get("view");
      if (zoom > 0) this.position = { row, col, zoom };
      else this.fit(true);
    } else if (this.fitted) this.fit(true);
    this.draw();
  }

  fitZoom() {
    const about = this.ground()?.about;
    return about ? Math.min(this.width / about.width, this.height / about.height) : 1;
  }

  fit(atOnce = false) {
    const about = this.ground()?.about;
    if (!about || !this.width) return;
    const whole = { row: about.height / 2, col: about.width / 2, zoom: this.fitZoom() };
    if (atOnce) {
      this.position = whole;
      this.goal = null;
    } else this.moveTo(whole);
    this.fitted = true;
    this.redraw();
  }

  moveTo(goal) {
    this.goal = this.bounded(goal);
    this.anchor = null;
    this.redraw();
  }

  bounded({ row, col, zoom }) {
    const about = this.ground()?.about;
    const { height, width } = about || { height: 1, width: 1 };
    const near = clamp(zoom, Math.min(1, this.fitZoom()), 48);
    // What fits is in the middle; of what does not, some part always stays in sight.
    const along = (at, side, room) => (side * near <= room + 1 ? side / 2 : clamp(at, 0, side));
    return { row: along(row, height, this.height), col: along(col, width, this.width), zoom: near };
  }

  zoomBy(factor, at = [this.width / 2, this.height / 2]) {
    if (!this.position) return;
    const from = this.goal && this.anchor ? this.goal.zoom : this.position.zoom;
    const zoom = this.bounded({ ...this.position, zoom: from * factor }).zoom;
    this.anchor = { at, point: this.toPhoto(at) };
    this.goal = { zoom };
    this.fitted = false;
    this.redraw();
  }

  zoomTo(zoom) {
    this.zoomBy(zoom / (this.goal?.zoom || this.position.zoom));
  }

  // One step of the way to where we want to look.
  step() {
    const { position, goal, anchor } = this;
    const near = Math.abs(Math.log(goal.zoom / position.zoom)) < 0.004;
    const share = near ? 1 : 0.28;
    const zoom = position.zoom * (goal.zoom / position.zoom) ** share;
    if (anchor) {
      const [row, col] = anchor.point;
      this.position = this.bounded({
        row: row - (anchor.at[1] - this.height / 2) / zoom,
        col: col - (anchor.at[0] - this.width / 2) / zoom,
        zoom,
      });
    } else {
      const close = near && Math.hypot(goal.row - position.row, goal.col - position.col) * zoom < 1;
      const part = close ? 1 : 0.28;
      this.position = { row: position.row + (goal.row - position.row) * part, col: position.col + (goal.col - position.col) * part, zoom };
      if (!close) return;
    }
    if (near) {
      this.goal = this.anchor = null;
      this.tell();
    }
  }

  // Python is told where we look, once we have come to rest.
  tell() {
    clearTimeout(this.telling);
    this.telling = setTimeout(() => {
      const { row, col, zoom } = this.position;
      this.told = [row, col, zoom];
      this.set("view", this.told);
    }, 150);
  }

  mine(row, col, zoom) {
    const told = this.told;
    return told && told[0] === row && told[1] === col && told[2] === zoom;
  }

  toPhoto([x, y]) {
    const { row, col, zoom } = this.position;
    return [row + (y - this.height / 2) / zoom, col + (x - this.width / 2) / zoom];
  }

  toScreen([row, col]) {
    const at = this.position;
    return [(col - at.col) * at.zoom + this.width / 2, (row - at.row) * at.zoom + this.height / 2];
  }

  // ---- drawing -------------------------------------------------------------------------------------------------

  redraw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.draw();
    });
  }

  draw() {
    if (!this.position || !this.width || !this.root.isConnected) return;
    if (this.goal) {
      this.step();
      this.redraw();
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.wanted = [];
    const ground = this.ground();
    if (ground) this.drawLayer(context, ground, 1, []);
    const layer = this.labelLayer();
    if (layer) this.drawLayer(context, layer, this.model.get("opacity"), this.model.get("hidden"));
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.drawStrokes(context);
    this.drawMarks(context);
    this.drawBrush(context);
    this.drawScaleBar(context);
    // On the way to another scale, tiles in between would come too late.
    const far = this.goal && Math.abs(Math.log(this.goal.zoom / this.position.zoom)) > 0.25;
    if (!far) this.ask();
    this.settleStrokes();
    const at = this.position;
    Object.assign(this.root.dataset, { zoom: at.zoom.toFixed(4), row: at.row.toFixed(1), col: at.col.toFixed(1) });
    this.root.dataset.waiting = String(this.wanted.length);
  }

  drawLayer(context, layer, alpha, hidden) {
    const { about } = layer;
    const scale = this.position.zoom * this.ratio; // device pixels per pixel of the photo
    const level = clamp(Math.floor(Math.log2(1 / scale) + 0.3), 0, about.levels - 1);
    const span = about.tile * 2 ** level;
    const [top, left] = this.toPhoto([0, 0]);
    const [bottom, right] = this.toPhoto([this.width, this.height]);
    const x = (col) => Math.round((col - left) * scale);
    const y = (row) => Math.round((row - top) * scale);
    context.save();
    context.beginPath();
    context.rect(x(0), y(0), x(about.width) - x(0), y(about.height) - y(0));
    context.clip();
    context.globalAlpha = alpha;
    context.imageSmoothingEnabled = about.codes ? scale < 0.9 : scale < 4;
    context.imageSmoothingQuality = "medium";
    const last = [Math.ceil(about.height / span) - 1, Math.ceil(about.width / span) - 1];
    for (let row = Math.max(0, Math.floor(top / span)); row <= Math.min(last[0], Math.floor(bottom / span)); row++) {
      for (let col = Math.max(0, Math.floor(left / span)); col <= Math.min(last[1], Math.floor(right / span)); col++) {
        const tile = layer.get(level, row, col);
        if (!tile || (tile.stale && tile.version < tile.stale)) {
          const away = Math.hypot((row + 0.5) * span - this.position.row, (col + 0.5) * span - this.position.col);
          this.wanted.push({ layer, level, row, col, away });
        }
        this.drawTile(context, layer, level, row, col, x, y, hidden);
      }
    }
    context.restore();
    this.level = level;
  }

  // The tile itself, or what a coarser one shows of it.
  drawTile(context, layer, level, row, col, x, y, hidden) {
    const { tile: side, levels } = layer.about;
    const span = side * 2 ** level;
    for (let up = 0; level + up < levels; up++) {
      const parts = 2 ** up;
      const found = layer.get(level + up, Math.floor(row / parts), Math.floor(col / parts));
      if (!found) continue;
      const [sx, sy] = [((col % parts) * side) / parts, ((row % parts) * side) / parts];
      const [w, h] = [Math.min(side / parts, found.width - sx), Math.min(side / parts, found.height - sy)];
      if (w <= 0 || h <= 0) return;
      const step = 2 ** (level + up);
      const [x0, y0] = [x(col * span), y(row * span)];
      const [x1, y1] = [x(col * span + w * step), y(row * span + h * step)];
      context.drawImage(layer.shown(found, hidden), sx, sy, w, h, x0, y0, x1 - x0, y1 - y0);
      return;
    }
  }

  ask() {
    const now = performance.now();
    for (const [name, since] of this.asked) if (now - since > PATIENCE) this.asked.delete(name);
    this.wanted.sort((a, b) => b.level - a.level || a.away - b.away);
    for (const { layer, level, row, col } of this.wanted) {
      if (this.asked.size >= IN_FLIGHT) break;
      const name = `${layer.about.key}:${Layer.name(level, row, col)}`;
      if (this.asked.has(name)) continue;
      this.asked.set(name, now);
      this.send({ type: "tile", layer: layer.about.key, level, row, col });
    }
  }

  drawStrokes(context) {
    const layer = this.labelLayer();
    if (!layer) return;
    context.save();
    context.lineCap = context.lineJoin = "round";
    context.globalAlpha = this.model.get("opacity");
    for (const stroke of [...this.strokes, ...(this.stroke ? [this.stroke] : [])]) {
      context.strokeStyle = rgb(layer.colors.get(stroke.code)?.color || [255, 255, 255]);
      context.lineWidth = Math.max(1, stroke.size) * this.position.zoom;
      context.beginPath();
      stroke.points.forEach(([row, col], i) => {
        const at = this.toScreen([row + 0.5, col + 0.5]);
        if (i) context.lineTo(...at);
        else context.moveTo(...at);
      });
      if (stroke.points.length === 1) context.lineTo(...this.toScreen([stroke.points[0][0] + 0.5, stroke.points[0][1] + 0.501]));
      context.stroke();
    }
    context.restore();
  }

  drawMarks(context) {
    const selected = this.model.get("selected");
    context.save();
    context.font = "12px system-ui, sans-serif";
    context.lineJoin = "round";
    const marks = this.model.get("marks");
    const ordered = [...marks.filter((m) => m.id !== selected), ...marks.filter((m) => m.id === selected)];
    for (const mark of ordered) this.drawMark(context, mark, mark.id === selected);
    context.restore();
  }

  drawMark(context, mark, selected) {
    const points = mark.points.map((p) => this.toScreen(p));
    const xs = points.map((p) => p[0]);
    const ys = points.map((p) => p[1]);
    if (Math.max(...xs) < -40 || Math.min(...xs) > this.width + 40 || Math.max(...ys) < -40 || Math.min(...ys) > this.height + 40) return;
    context.beginPath();
    if (mark.kind === "point") context.arc(xs[0], ys[0], selected ? 7 : 5, 0, 2 * Math.PI);
    else points.forEach((p, i) => (i ? context.lineTo(...p) : context.moveTo(...p)));
    if (mark.kind === "outline") context.closePath();
    const color = rgb(mark.color);
    if (mark.kind === "point" || (selected && mark.kind !== "line")) {
      context.globalAlpha = mark.kind === "point" ? 0.9 : 0.22;
      context.fillStyle = color;
      context.fill();
      context.globalAlpha = 1;
    }
    const width = (mark.width || 2) + (selected ? 2 : 0);
    context.strokeStyle = "rgba(0,0,0,0.55)";
    context.lineWidth = width + 2;
    context.stroke();
    context.strokeStyle = selected ? "#fff" : color;
    context.lineWidth = width;
    context.stroke();
    if (selected) {
      context.strokeStyle = color;
      context.lineWidth = Math.max(1, width - 2);
      context.stroke();
    }
    const room = mark.kind === "point" || mark.kind === "line" || Math.max(...xs) - Math.min(...xs) > 8 * mark.text.length;
    if (mark.text && (room || selected)) this.drawText(context, mark, xs, ys);
  }

  drawText(context, mark, xs, ys) {
    const width = context.measureText(mark.text).width;
    const middle = mark.kind === "line";
    let x = middle ? (xs[0] + xs[xs.length - 1]) / 2 - width / 2 : Math.min(...xs) + (mark.kind === "point" ? 9 : 3);
    let y = middle ? (ys[0] + ys[ys.length - 1]) / 2 : Math.min(...ys) + (mark.kind === "point" ? 0 : 11);
    if (mark.kind === "outline") [x, y] = [xs.reduce((a, b) => a + b) / xs.length - width / 2, ys.reduce((a, b) => a + b) / ys.length];
    context.textBaseline = "middle";
    context.fillStyle = "rgba(20,20,22,0.72)";
    context.fillRect(x - 3, y - 8, width + 6, 16);
    context.fillStyle = "#fff";
    context.fillText(mark.text, x, y + 0.5);
  }

  drawBrush(context) {
    if (!this.pointer || this.model.get("tool") !== "brush" || !this.model.get("editable") || this.space) return;
    const [row, col] = this.toPhoto(this.pointer).map((x) => Math.floor(x) + 0.5);
    const radius = (Math.max(1, this.model.get("brush_size")) / 2) * this.position.zoom;
    for (const [color, width] of [["rgba(0,0,0,0.7)", 3], ["#fff", 1.25]]) {
      context.beginPath();
      context.arc(...this.toScreen([row, col]), Math.max(2, radius), 0, 2 * Math.PI);
      context.strokeStyle = color;
      context.lineWidth = width;
      context.stroke();
    }
  }

  drawScaleBar(context) {
    const um = this.model.get("pixel_size_um");
    delete this.root.dataset.scale;
    if (!um) return;
    const around = (0.2 * this.width * um) / this.position.zoom;
    const decade = 10 ** Math.floor(Math.log10(around));
    const length = [5, 2, 1].map((n) => n * decade).find((n) => n <= around);
    const [scale, unit] = [[1e4, "cm"], [1e3, "mm"], [1, "µm"], [1e-3, "nm"]].find(([s]) => length >= s) || [1e-3, "nm"];
    const pixels = (length / um) * this.position.zoom;
    const text = `${Number((length / scale).toPrecision(3))} ${unit}`;
    context.font = "12px system-ui, sans-serif";
    const width = Math.max(pixels, context.measureText(text).width) + 16;
    const [x, y] = [this.width - width - 8, this.height - 38];
    context.fillStyle = "rgba(250,250,248,0.88)";
    context.fillRect(x, y, width, 30);
    context.fillStyle = "#1e1e20";
    context.textBaseline = "middle";
    context.fillText(text, x + (width - context.measureText(text).width) / 2, y + 10);
    context.fillRect(x + (width - pixels) / 2, y + 20, pixels, 4);
    this.root.dataset.scale = text;
  }

  // ---- hands ---------------------------------------------------------------------------------------------------

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  pixel(at) {
    return this.toPhoto(at).map(Math.floor);
  }

  acting() {
    return this.model.get("editable") && !this.space ? this.model.get("tool") : "pan";
  }

  pointerDown(event) {
    // The first press may only wake the viewer, and a finger's may be about to scroll the page.
    const waking = !this.engaged;
    this.lastScroll = undefined; // a press ends what was scrolled before
    const finger = waking && event.pointerType === "touch";
    if (!finger) this.canvas.focus({ preventScroll: true });
    try {
      this.canvas.setPointerCapture(event.pointerId);
    } catch {
      // a pointer that is gone already needs none
    }
    const at = this.at(event);
    this.held.set(event.pointerId, at);
    this.goal = this.anchor = null;
    if (this.held.size === 2) {
      this.stroke = null; // two fingers zoom
      this.press = null;
    } else if (event.button === 0 && this.acting() === "brush" && !finger) {
      const [size, code] = [this.model.get("brush_size"), this.model.get("brush_code")];
      this.stroke = { id: `${this.id}-${performance.now()}`, points: [this.pixel(at)], size, code, waking };
      this.redraw();
    } else {
      this.press = { at, moved: false, button: event.button, waking, finger };
    }
    event.preventDefault();
  }

  pointerMove(event) {
    const at = this.at(event);
    const before = this.held.get(event.pointerId);
    if (before && this.held.size === 2) this.pinch(event.pointerId, at);
    else if (before && this.stroke) {
      const events = event.getCoalescedEvents?.() || [];
      for (const each of events.length ? events : [event]) this.addPoint(this.pixel(this.at(each)));
    } else if (before && this.press && !this.press.finger) {
      const [dx, dy] = [at[0] - this.press.at[0], at[1] - this.press.at[1]];
      if (this.press.moved || Math.hypot(dx, dy) > 4) {
        const from = this.press.moved ? before : this.press.at;
        this.press.moved = true;
        this.panBy(from[0] - at[0], from[1] - at[1]);
      }
    }
    if (before) this.held.set(event.pointerId, at);
    this.hover(at);
  }

  addPoint([row, col]) {
    const [r, c] = this.stroke.points[this.stroke.points.length - 1];
    if (row !== r || col !== c) this.stroke.points.push([row, col]);
  }

  pinch(id, at) {
    const other = [...this.held].find(([key]) => key !== id)[1];
    const before = this.held.get(id);
    const factor = Math.hypot(at[0] - other[0], at[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1]));
    const middle = [(at[0] + other[0]) / 2, (at[1] + other[1]) / 2];
    const point = this.toPhoto([(before[0] + other[0]) / 2, (before[1] + other[1]) / 2]);
    const zoom = this.bounded({ ...this.position, zoom: this.position.zoom * factor }).zoom;
    const [row, col] = [point[0] - (middle[1] - this.height / 2) / zoom, point[1] - (middle[0] - this.width / 2) / zoom];
    this.position = this.bounded({ row, col, zoom });
    this.fitted = false;
    this.tell();
    this.redraw();
  }

  panBy(x, y) {
    const { row, col, zoom } = this.position;
    this.position = this.bounded({ row: row + y / zoom, col: col + x / zoom, zoom });
    this.goal = this.anchor = null;
    this.fitted = false;
    this.tell();
    this.redraw();
  }

  pointerUp(event, cancelled = false) {
    this.held.delete(event.pointerId);
    const { stroke, press } = this;
    this.stroke = this.press = null;
    if (press?.finger && cancelled) this.tellHint("Two fingers zoom and move the photo; or tap it first");
    if (press?.finger && !cancelled) this.canvas.focus({ preventScroll: true });
    if (stroke && !cancelled) this.paint(stroke);
    if (press && !press.moved && !cancelled && press.button === 0) this.click(press.at, press.waking);
    this.redraw();
  }

  // Who only clicks a viewer that was asleep wants the wheel, or to get back to work; nothing is painted by that.
  paint({ waking, ...stroke }) {
    if (waking && stroke.points.length === 1) this.tellHint("Click again to paint");
    else {
      this.strokes.push(stroke);
      this.send({ type: "stroke", ...stroke });
    }
  }

  click(at, waking = false) {
    const [row, col] = this.toPhoto(at);
    const tool = this.acting();
    if (waking && tool !== "pan") this.tellHint(`Click again to ${tool === "fill" ? "fill" : "paint"}`);
    else if (tool === "fill") this.send({ type: "fill", at: this.pixel(at), code: this.model.get("brush_code") });
    else if (tool === "pan") this.send({ type: "click", at: [row, col], tolerance: 8 / this.position.zoom });
  }

  hover(at) {
    this.pointer = at;
    const ground = this.ground()?.about;
    this.readout.textContent = "";
    if (at && ground && this.position) {
      const [row, col] = this.pixel(at);
      if (row >= 0 && col >= 0 && row < ground.height && col < ground.width) {
        const layer = this.labelLayer();
        const code = layer?.codeAt(row, col, this.level || 0);
        const name = layer?.colors.get(code)?.name || (code === VOID && !layer.about.ramp ? "void" : "");
        const place = [...this.lengths(at), `row ${row}, col ${col}`, ...(name ? [name] : [])];
        this.readout.textContent = place.join(" · ");
      }
    }
    this.canvas.dataset.tool = this.space ? "pan" : this.acting();
    if (this.acting() === "brush") this.redraw();
  }

  // Where a place lies, from the upper left corner of the photo.
  lengths(at) {
    const um = this.model.get("pixel_size_um");
    if (!um) return [];
    const [y, x] = this.toPhoto(at).map((pixels) => micrometres(pixels * um, um));
    return [`x ${x}, y ${y}`];
  }

  wheel(event) {
    const now = performance.now();
    const command = event.ctrlKey || event.metaKey;
    const brush = event.altKey && this.model.get("editable");
    const passing = now - (this.lastScroll ?? -1e9) < 250 && !command;
    if (passing || !(this.engaged || command || brush)) {
      if (!passing) this.tellHint(`${COMMAND} + wheel to zoom, or click first`);
      this.lastScroll = now;
      return;
    }
    event.preventDefault();
    this.tellHint("");
    const unit = [1, 16, 400][event.deltaMode];
    const [across, turn] = [event.deltaX, event.deltaY].map((delta) => clamp(delta * unit, -240, 240));
    if (brush) {
      const size = this.model.get("brush_size");
      this.set("brush_size", clamp(Math.round(size * (turn < 0 ? 1.2 : 1 / 1.2) + (turn < 0 ? 0.5 : -0.5)), 1, 200));
    } else if (Math.abs(across) > Math.abs(turn)) this.panBy(across, 0);
    else {
      const pinch = event.ctrlKey && Math.abs(turn) < 40; // on a touchpad; a notch of a wheel is more
      this.zoomBy(Math.exp(-turn * (pinch ? 0.01 : 0.0022)), this.at(event));
    }
  }

  // A pinch as Safari tells it: `scale` counts from its beginning. Fingers on the screen are told as pointers too.
  gesture(event, begins = false) {
    event.preventDefault();
    if (!begins && !this.held.size) this.zoomBy(event.scale / this.pinched, this.at(event));
    this.pinched = event.scale;
  }

  holdSpace(held) {
    this.space = held;
    this.canvas.dataset.tool = this.acting();
    this.redraw();
  }

  keyDown(event) {
    const key = event.key.toLowerCase();
    // A notebook in command mode would take "a" or "x" for its own.
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (plain && (key.length === 1 || key.startsWith("arrow") || key === "enter")) event.stopPropagation();
    if (event.target !== this.canvas) return;
    const step = 80;
    const command = event.ctrlKey || event.metaKey;
    const editing = this.model.get("editable");
    const size = this.model.get("brush_size");
    const actions = command
      ? editing && {
          z: () => this.send({ type: event.shiftKey ? "redo" : "undo" }),
          y: () => this.send({ type: "redo" }),
          s: () => this.send({ type: "save" }),
        }
      : {
          arrowleft: () => this.panBy(-step, 0),
          arrowright: () => this.panBy(step, 0),
          arrowup: () => this.panBy(0, -step),
          arrowdown: () => this.panBy(0, step),
          "+": () => this.zoomBy(1.6),
          "=": () => this.zoomBy(1.6),
          "-": () => this.zoomBy(1 / 1.6),
          0: () => this.fit(),
          1: () => this.zoomTo(1 / devicePixelRatio),
          enter: () => this.click([this.width / 2, this.height / 2]),
          ...(editing && {
            " ": () => this.holdSpace(true),
            p: () => this.set("tool", "pan"),
            b: () => this.set("tool", "brush"),
            f: () => this.set("tool", "fill"),
            "[": () => this.set("brush_size", Math.max(1, Math.round(size / 1.25 - 0.5))),
            "]": () => this.set("brush_size", Math.min(200, Math.round(size * 1.25 + 0.5))),
          }),
        };
    if (actions && Object.hasOwn(actions, key)) {
      actions[key]();
      event.preventDefault();
      event.stopPropagation();
    }
  }

  remove() {
    for (const [name, action] of this.handlers) this.model.off(name, action);
    for (const [target, name, action] of this.outside) target.removeEventListener(name, action, { capture: true });
    clearTimeout(this.hinting);
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    clearTimeout(this.telling);
  }
}

function render({ model, el }) {
  const view = new View(model, el);
  return () => view.remove();
}

export default { render };
