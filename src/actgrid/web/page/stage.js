/** A canvas on which a large picture of tiles is moved and magnified. */

import { ARROWS, withModifier } from "./dom.js";

const CLICK = 5; // pixels a pointer may move in a click
const TWICK = 220; // milliseconds in which a second click makes a double one
const MOST = 96; // screen pixels for one of the picture

/**
 * `on.view(view)` when it was moved (null: fitted), `on.hover(cell, point)` when another tile is
 * pointed at, `on.pick(cell)` when one is chosen, `on.drawn()` after pixels were drawn.
 */
export class Stage {
  constructor(canvas, on) {
    Object.assign(this, { canvas, on, picture: null, grid: null, view: null });
    Object.assign(this, { hovered: null, cursor: null, pointers: new Map(), drag: null, asked: 0 });
    this.context = canvas.getContext("2d");
    canvas.tabIndex = 0;
    const listen = (name, work, options) => canvas.addEventListener(name, work.bind(this), options);
    listen("pointerdown", this.down);
    listen("pointermove", this.move);
    listen("pointerup", this.up);
    listen("pointercancel", this.cancel);
    listen("pointerleave", () => this.hover(null));
    listen("wheel", this.wheel, { passive: false });
    listen("dblclick", (event) => this.zoom(2, this.point(event)));
    listen("keydown", this.key);
    listen("blur", () => this.putCursor(null));
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  /** Show a picture; `view` is kept by whoever owns the stage. */
  show(picture, grid) {
    Object.assign(this, { picture, grid });
    if (this.cursor !== null && this.cursor >= (grid?.count ?? 0)) this.cursor = null;
    this.hover(null);
    this.draw();
  }

  setView(view) {
    this.view = view;
    this.draw();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
    if (width === this.canvas.width && height === this.canvas.height) return;
    Object.assign(this.canvas, { width, height });
    this.paint();
  }

  /** The view that shows the whole picture. */
  fitted() {
    const { width, height } = this.grid;
    const room = [this.canvas.clientWidth - 16, this.canvas.clientHeight - 16];
    const scale = Math.max(Math.min(room[0] / width, room[1] / height, MOST), 1e-3);
    return { x: width / 2, y: height / 2, scale };
  }

  get place() {
    return this.view ? this.kept(this.view) : this.fitted();
  }

  /** A view in which there is something to see: an address may say anything. */
  kept(view) {
    const { width, height } = this.grid;
    const between = (value, least, most) => Math.min(Math.max(value, least), most);
    const scale = between(view.scale, this.fitted().scale / 4, MOST);
    return { x: between(view.x, 0, width), y: between(view.y, 0, height), scale };
  }

  /** Where the picture begins on the canvas: at whole pixels, so that it does not tremble. */
  get origin() {
    const { x, y, scale } = this.place;
    const ratio = window.devicePixelRatio || 1;
    const whole = (value) => Math.round(value * ratio) / ratio;
    const { clientWidth, clientHeight } = this.canvas;
    return { x: whole(clientWidth / 2 - x * scale), y: whole(clientHeight / 2 - y * scale), scale };
  }

  get middle() {
    return { x: this.canvas.clientWidth / 2, y: this.canvas.clientHeight / 2 };
  }

  /** From pixels of the screen, on the canvas, to those of the picture. */
  toPicture(point) {
    const { x, y, scale } = this.origin;
    return { x: (point.x - x) / scale, y: (point.y - y) / scale };
  }

  /** Where a part of the picture is on the canvas, in pixels of the screen. */
  toScreen(part) {
    const { x, y, scale } = this.origin;
    const [width, height] = [part.width * scale, part.height * scale];
    return { x: x + part.x * scale, y: y + part.y * scale, width, height };
  }

  draw() {
    this.asked ||= requestAnimationFrame(() => this.paint());
  }

  paint() {
    cancelAnimationFrame(this.asked);
    this.asked = 0;
    const { canvas, context, picture } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!picture || !canvas.width || !canvas.height) return;
    const ratio = window.devicePixelRatio || 1;
    const { x, y, scale } = this.origin;
    context.imageSmoothingEnabled = scale * ratio < 1;
    context.imageSmoothingQuality = "medium";
    context.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
    context.drawImage(picture, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.cursor !== null) this.outline(this.cursor, 3);
    if (this.hovered !== null && this.hovered !== this.cursor) this.outline(this.hovered, 2);
    this.on.drawn?.();
  }

  outline(cell, width) {
    const { context } = this;
    const { x, y, width: wide, height: high } = this.toScreen(this.grid.cell(cell));
    for (const [colour, line] of [["#000a", width + 2], ["#fff", width]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.strokeRect(x - width / 2, y - width / 2, wide + width, high + width);
    }
  }

  moveTo(view) {
    this.on.view(rounded(this.kept(view)));
  }

  /** Magnify around a point of the canvas, its middle if none is given. */
  zoom(factor, point = this.middle) {
    if (!this.grid) return;
    const { x, y } = this.toPicture(point);
    const place = this.place;
    const { scale } = this.kept({ ...place, scale: place.scale * factor });
    const kept = place.scale / scale;
    this.moveTo({ x: x + (place.x - x) * kept, y: y + (place.y - y) * kept, scale });
  }

  pan(right, down) {
    if (!this.grid) return;
    const place = this.place;
    this.moveTo({ ...place, x: place.x + right / place.scale, y: place.y + down / place.scale });
  }

  /* Pointers */

  point(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  cellAt(point) {
    if (!this.grid || !this.picture) return null;
    const { x, y } = this.toPicture(point);
    return this.grid.at(x, y);
  }

  down(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.point(event));
    if (this.pointers.size === 1) this.drag = { at: this.point(event), far: false };
    else this.drag.far = true;
  }

  move(event) {
    const point = this.point(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.hover(this.cellAt(point), point);
      return;
    }
    const [other] = [...this.pointers].flatMap(([id, at]) => (id === event.pointerId ? [] : [at]));
    this.pointers.set(event.pointerId, point);
    if (!this.grid) return;
    if (other) {
      const apart = (one) => Math.max(Math.hypot(one.x - other.x, one.y - other.y), 1);
      const middle = { x: (point.x + other.x) / 2, y: (point.y + other.y) / 2 };
      this.pan((before.x - point.x) / 2, (before.y - point.y) / 2);
      this.zoom(apart(point) / apart(before), middle);
      return;
    }
    this.drag.far ||= Math.hypot(point.x - this.drag.at.x, point.y - this.drag.at.y) > CLICK;
    if (!this.drag.far) return;
    this.hover(null);
    this.canvas.classList.add("dragged");
    this.pan(before.x - point.x, before.y - point.y);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    this.canvas.classList.remove("dragged");
    if (this.pointers.size || this.drag.far) return;
    const cell = this.cellAt(this.point(event));
    // The second of two clicks magnifies; so the first one waits for it.
    clearTimeout(this.clicked);
    if (event.timeStamp - (this.last ?? -Infinity) > 2 * TWICK && cell !== null) {
      this.clicked = setTimeout(() => this.on.pick(cell), TWICK);
    }
    this.last = event.timeStamp;
  }

  cancel(event) {
    this.pointers.delete(event.pointerId);
    this.canvas.classList.remove("dragged");
  }

  wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 20 : 1;
    this.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0016)), this.point(event));
    this.hover(this.cellAt(this.point(event)), this.point(event));
  }

  hover(cell, point) {
    const same = cell === this.hovered;
    this.hovered = cell;
    if (cell !== null || !same) this.on.hover(cell, point);
    if (!same) this.draw();
  }

  /* Keys */

  putCursor(cell) {
    if (cell === this.cursor) return;
    this.cursor = cell;
    if (cell !== null) this.keepInView(this.grid.cell(cell));
    const at = cell === null ? undefined : this.toScreen(this.grid.cell(cell));
    this.on.hover(cell, at && { x: at.x + at.width, y: at.y + at.height }, true);
    this.draw();
  }

  keepInView(part) {
    const at = this.toScreen(part);
    const beyond = (from, size, room) =>
      (from < 0 ? from - 8 : Math.max(0, Math.min(from + size + 8 - room, from)));
    const right = beyond(at.x, at.width, this.canvas.clientWidth);
    const down = beyond(at.y, at.height, this.canvas.clientHeight);
    if (right || down) this.pan(right, down);
  }

  key(event) {
    if (!this.grid?.count || withModifier(event)) return;
    const arrow = ARROWS[event.key];
    if (arrow && event.shiftKey) this.pan(arrow[0] * 80, arrow[1] * 80);
    else if (arrow) this.step(arrow);
    else if (event.key === "Home") this.putCursor(0);
    else if (event.key === "End") this.putCursor(this.grid.count - 1);
    else if (event.key === "Enter" || event.key === " ") this.on.pick(this.cursor ?? 0);
    else if (event.key === "+" || event.key === "=") this.zoom(1.5, this.cursorPoint());
    else if (event.key === "-") this.zoom(1 / 1.5, this.cursorPoint());
    else if (event.key === "0") this.on.view(null);
    else if (event.key === "Escape" && this.cursor !== null) this.putCursor(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  cursorPoint() {
    if (this.cursor === null) return undefined;
    const { x, y, width, height } = this.toScreen(this.grid.cell(this.cursor));
    return { x: x + width / 2, y: y + height / 2 };
  }

  step([right, down]) {
    if (this.cursor === null) {
      this.putCursor(this.cellAt(this.middle) ?? 0);
      return;
    }
    const next = this.cursor + right + down * this.grid.columns;
    if (next >= 0 && next < this.grid.count) this.putCursor(next);
  }
}

/** A place as a link tells it, so that the link shows the very same pixels. */
const rounded = ({ x, y, scale }) => ({
  x: +x.toFixed(3),
  y: +y.toFixed(3),
  scale: +scale.toPrecision(6),
});
