/** A canvas on which a large picture of tiles can be panned and zoomed. */

import { ARROW_DIRECTIONS, getContext, hasModifier } from "./dom.js";
import { drawMark } from "./marks.js";

/** @import { Grid, Point, Rect } from "./levels.js" */
/** @import { Viewport } from "./state.js" */
/** @import { Mark } from "./marks.js" */

const CLICK_DISTANCE = 5; // pixels that a pointer may move during a click
const DOUBLE_CLICK_TIME = 220; // maximum milliseconds between the clicks of a double click
const MAX_SCALE = 96; // screen pixels per picture pixel

/**
 * @typedef {object} Callbacks
 * @property {(view: Viewport | null) => void} view Called after panning or zooming; null: fit to
 *   the canvas.
 * @property {(cell: number | null, point?: Point, isByKey?: boolean) => void} hover Called when the
 *   pointer or the cursor is over another cell.
 * @property {(cell: number) => void} pick Called when the user selects a cell.
 * @property {() => void} [drawn] Called after the picture is drawn.
 */

export class Stage {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Callbacks} on
   */
  constructor(canvas, on) {
    this.canvas = canvas;
    this.on = on;
    /** @type {HTMLCanvasElement | null} */
    this.picture = null;
    /** @type {Grid | null} */
    this.grid = null;
    /** @type {Map<number, Mark>} */
    this.marks = new Map();
    /** @type {Viewport | null} */
    this.view = null;
    /** @type {number | null} */
    this.hovered = null;
    /** @type {number | null} */
    this.cursor = null;
    /** @type {Map<number, Point>} */
    this.pointers = new Map();
    this.drag = { start: { x: 0, y: 0 }, hasMoved: false };
    this.frame = 0;
    this.clickTimer = 0;
    this.lastClick = -Infinity; // time stamp of the event
    this.context = getContext(canvas);
    canvas.tabIndex = 0;
    /**
     * @param {string} name
     * @param {(event: any) => void} action
     * @param {AddEventListenerOptions} [options]
     */
    const listen = (name, action, options) =>
      canvas.addEventListener(name, action.bind(this), options);
    listen("pointerdown", this.startDrag);
    listen("pointermove", this.movePointer);
    listen("pointerup", this.endDrag);
    listen("pointercancel", this.cancelDrag);
    listen("pointerleave", () => this.hover(null));
    listen("wheel", this.zoomByWheel, { passive: false });
    listen("dblclick", (event) => this.zoom(2, this.getPoint(event)));
    listen("keydown", this.handleKey);
    listen("blur", () => this.setCursor(null));
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  /**
   * Show a picture with the layout of its cells; the owner of the stage sets the view.
   * @param {HTMLCanvasElement | null} picture
   * @param {Grid | null} grid
   * @param {Map<number, Mark>} [marks] Marks of channels.
   */
  show(picture, grid, marks = new Map()) {
    this.picture = picture;
    this.grid = grid;
    this.marks = marks;
    if (this.cursor !== null && this.cursor >= (grid?.count ?? 0)) this.cursor = null;
    this.hover(null);
    this.draw();
  }

  /** @param {Viewport | null} view */
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

  /** Width and height of the picture in picture pixels. */
  get pictureSize() {
    return this.grid ?? { width: 1, height: 1 };
  }

  /** Return the view that shows the whole picture. */
  fitView() {
    const { width, height } = this.pictureSize;
    const available = [this.canvas.clientWidth - 16, this.canvas.clientHeight - 16];
    const fit = Math.min(available[0] / width, available[1] / height, MAX_SCALE);
    const scale = Math.max(fit, 1e-3);
    return { x: width / 2, y: height / 2, scale };
  }

  get currentView() {
    return this.view ? this.clampView(this.view) : this.fitView();
  }

  /**
   * Return a view limited to the picture: the values of an address may be arbitrary.
   * @param {Viewport} view
   */
  clampView(view) {
    const { width, height } = this.pictureSize;
    /** @type {(value: number, min: number, max: number) => number} */
    const clamp = (value, min, max) => Math.min(Math.max(value, min), max);
    const scale = clamp(view.scale, this.fitView().scale / 4, MAX_SCALE);
    return { x: clamp(view.x, 0, width), y: clamp(view.y, 0, height), scale };
  }

  /** Position of the picture on the canvas, rounded to whole pixels so that it does not flicker. */
  get origin() {
    const { x, y, scale } = this.currentView;
    const ratio = window.devicePixelRatio || 1;
    /** @param {number} value */
    const round = (value) => Math.round(value * ratio) / ratio;
    const { clientWidth, clientHeight } = this.canvas;
    return { x: round(clientWidth / 2 - x * scale), y: round(clientHeight / 2 - y * scale), scale };
  }

  get centre() {
    return { x: this.canvas.clientWidth / 2, y: this.canvas.clientHeight / 2 };
  }

  /**
   * Convert a point on the canvas from screen pixels to picture pixels.
   * @param {Point} point
   * @returns {Point}
   */
  toPicture(point) {
    const { x, y, scale } = this.origin;
    return { x: (point.x - x) / scale, y: (point.y - y) / scale };
  }

  /**
   * Convert a rectangle of the picture to screen pixels on the canvas.
   * @param {Rect} rect
   * @returns {Rect}
   */
  toScreen(rect) {
    const { x, y, scale } = this.origin;
    const [width, height] = [rect.width * scale, rect.height * scale];
    return { x: x + rect.x * scale, y: y + rect.y * scale, width, height };
  }

  /** Paint in the next animation frame. */
  draw() {
    this.frame ||= requestAnimationFrame(() => this.paint());
  }

  paint() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
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
    this.drawMarks();
    if (this.cursor !== null) this.drawOutline(this.cursor, 3);
    if (this.hovered !== null && this.hovered !== this.cursor) this.drawOutline(this.hovered, 2);
    this.on.drawn?.();
  }

  /** Draw the marks of the channels on their tiles. */
  drawMarks() {
    const { context, grid } = this;
    if (!grid) return;
    const { slices } = grid.tiles;
    const { clientWidth, clientHeight } = this.canvas;
    for (const [channel, mark] of this.marks) {
      const first = grid.getFirstCell(channel);
      if (first === undefined) continue;
      for (let cell = first; cell < first + slices; cell += 1) {
        for (const rect of grid.getCellRects(cell).map((part) => this.toScreen(part))) {
          const { x, y, width, height } = rect;
          const isVisible = x < clientWidth && y < clientHeight && x + width > 0 && y + height > 0;
          if (isVisible) drawMark(context, rect, mark);
        }
      }
    }
  }

  /**
   * @param {number} cell
   * @param {number} lineWidth
   */
  drawOutline(cell, lineWidth) {
    const { context, grid } = this;
    if (!grid) return;
    const offset = lineWidth / 2;
    for (const rect of grid.getCellRects(cell)) {
      const { x, y, width, height } = this.toScreen(rect);
      for (const [colour, border] of /** @type {const} */ ([["#000a", 2], ["#fff", 0]])) {
        context.strokeStyle = colour;
        context.lineWidth = lineWidth + border;
        context.strokeRect(x - offset, y - offset, width + lineWidth, height + lineWidth);
      }
    }
  }

  /** @param {Viewport} view */
  moveTo(view) {
    this.on.view(roundView(this.clampView(view)));
  }

  /**
   * Zoom around a point of the canvas, by default the centre.
   * @param {number} factor
   * @param {Point} [point]
   */
  zoom(factor, point = this.centre) {
    if (!this.grid) return;
    const { x, y } = this.toPicture(point);
    const view = this.currentView;
    const { scale } = this.clampView({ ...view, scale: view.scale * factor });
    const ratio = view.scale / scale;
    this.moveTo({ x: x + (view.x - x) * ratio, y: y + (view.y - y) * ratio, scale });
  }

  /**
   * Pan by a number of screen pixels.
   * @param {number} right
   * @param {number} down
   */
  pan(right, down) {
    if (!this.grid) return;
    const view = this.currentView;
    this.moveTo({ ...view, x: view.x + right / view.scale, y: view.y + down / view.scale });
  }

  /* Pointers */

  /**
   * @param {MouseEvent} event
   * @returns {Point}
   */
  getPoint(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  /** @param {Point} point */
  findCell(point) {
    if (!this.grid || !this.picture) return null;
    const { x, y } = this.toPicture(point);
    return this.grid.findCell(x, y);
  }

  /** @param {PointerEvent} event */
  startDrag(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.getPoint(event));
    if (this.pointers.size === 1) this.drag = { start: this.getPoint(event), hasMoved: false };
    else this.drag.hasMoved = true;
  }

  /** @param {PointerEvent} event */
  movePointer(event) {
    const point = this.getPoint(event);
    const previous = this.pointers.get(event.pointerId);
    if (!previous) {
      this.hover(this.findCell(point), point);
      return;
    }
    const [other] = [...this.pointers].flatMap(([id, position]) =>
      (id === event.pointerId ? [] : [position]));
    this.pointers.set(event.pointerId, point);
    if (!this.grid) return;
    if (other) {
      /** @param {Point} position */
      const getDistance = ({ x, y }) => Math.max(Math.hypot(x - other.x, y - other.y), 1);
      const centre = { x: (point.x + other.x) / 2, y: (point.y + other.y) / 2 };
      this.pan((previous.x - point.x) / 2, (previous.y - point.y) / 2);
      this.zoom(getDistance(point) / getDistance(previous), centre);
      return;
    }
    const { start } = this.drag;
    this.drag.hasMoved ||= Math.hypot(point.x - start.x, point.y - start.y) > CLICK_DISTANCE;
    if (!this.drag.hasMoved) return;
    this.hover(null);
    this.canvas.classList.add("dragged");
    this.pan(previous.x - point.x, previous.y - point.y);
  }

  /** @param {PointerEvent} event */
  endDrag(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    this.canvas.classList.remove("dragged");
    if (this.pointers.size || this.drag.hasMoved) return;
    const cell = this.findCell(this.getPoint(event));
    // A double click zooms, so the action of a click is delayed until no second click can follow.
    clearTimeout(this.clickTimer);
    const elapsed = event.timeStamp - this.lastClick;
    if (elapsed > 2 * DOUBLE_CLICK_TIME && cell !== null) {
      this.clickTimer = setTimeout(() => this.on.pick(cell), DOUBLE_CLICK_TIME);
    }
    this.lastClick = event.timeStamp;
  }

  /** @param {PointerEvent} event */
  cancelDrag(event) {
    this.pointers.delete(event.pointerId);
    this.canvas.classList.remove("dragged");
  }

  /** @param {WheelEvent} event */
  zoomByWheel(event) {
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 20 : 1; // pixels of a line or of a pixel
    const point = this.getPoint(event);
    this.zoom(Math.exp(-event.deltaY * unit * (event.ctrlKey ? 0.01 : 0.0016)), point);
    this.hover(this.findCell(point), point);
  }

  /**
   * @param {number | null} cell
   * @param {Point} [point]
   */
  hover(cell, point) {
    const isSame = cell === this.hovered;
    this.hovered = cell;
    if (cell !== null || !isSame) this.on.hover(cell, point);
    if (!isSame) this.draw();
  }

  /* Keys */

  /** @param {number | null} cell */
  setCursor(cell) {
    if (cell === this.cursor) return;
    this.cursor = cell;
    if (cell === null || !this.grid) {
      this.on.hover(null, undefined, true);
    } else {
      const pictureRect = this.grid.getCellRect(cell);
      this.panTo(pictureRect);
      const rect = this.toScreen(pictureRect);
      this.on.hover(cell, { x: rect.x + rect.width, y: rect.y + rect.height }, true);
    }
    this.draw();
  }

  /**
   * Pan as far as needed to show a rectangle of the picture.
   * @param {Rect} pictureRect
   */
  panTo(pictureRect) {
    const rect = this.toScreen(pictureRect);
    /** @type {(start: number, size: number, available: number) => number} */
    const getOverflow = (start, size, available) =>
      (start < 0 ? start - 8 : Math.max(0, Math.min(start + size + 8 - available, start)));
    const right = getOverflow(rect.x, rect.width, this.canvas.clientWidth);
    const down = getOverflow(rect.y, rect.height, this.canvas.clientHeight);
    if (right || down) this.pan(right, down);
  }

  /** @param {KeyboardEvent} event */
  handleKey(event) {
    if (!this.grid?.count || hasModifier(event)) return;
    const arrow = ARROW_DIRECTIONS[event.key];
    if (arrow && event.shiftKey) this.pan(arrow[0] * 80, arrow[1] * 80);
    else if (arrow) this.moveCursor(arrow);
    else if (event.key === "Home") this.setCursor(0);
    else if (event.key === "End") this.setCursor(this.grid.count - 1);
    else if (event.key === "Enter" || event.key === " ") this.on.pick(this.cursor ?? 0);
    else if (event.key === "+" || event.key === "=") this.zoom(1.5, this.getCursorPoint());
    else if (event.key === "-") this.zoom(1 / 1.5, this.getCursorPoint());
    else if (event.key === "0") this.on.view(null);
    else if (event.key === "Escape" && this.cursor !== null) this.setCursor(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  getCursorPoint() {
    if (this.cursor === null || !this.grid) return undefined;
    const { x, y, width, height } = this.toScreen(this.grid.getCellRect(this.cursor));
    return { x: x + width / 2, y: y + height / 2 };
  }

  /** @param {[number, number]} direction */
  moveCursor([right, down]) {
    if (!this.grid) return;
    if (this.cursor === null) {
      this.setCursor(this.findCell(this.centre) ?? 0);
      return;
    }
    const next = this.cursor + right + down * this.grid.columns;
    if (next >= 0 && next < this.grid.count) this.setCursor(next);
  }
}

/**
 * Round a view as in the address, so that a link shows the same pixels.
 * @param {Viewport} view
 */
const roundView = ({ x, y, scale }) => ({
  x: +x.toFixed(3),
  y: +y.toFixed(3),
  scale: +scale.toPrecision(6),
});
