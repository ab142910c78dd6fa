/** Functions that create page elements and format values as text. */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | null | undefined} Child */
/** @typedef {Record<string, any>} Attributes Attributes, and listeners such as `onclick`, by name. */

/**
 * Return the element of the page with an id.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no element ${id}`);
  return element;
}

/**
 * Set the attributes and listeners of a new element, and append its children. Strings are inserted
 * as text, never as HTML: names of files and layers may contain any character.
 * @template {Element} T
 * @param {T} element
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
}

/**
 * Create an HTML element.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 */
export const make = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

/**
 * Create an SVG element.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 */
export const makeSvg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/**
 * @param {string} text
 * @param {Attributes} attributes
 * @param {...Child} children
 */
export const button = (text, attributes, ...children) =>
  make("button", { type: "button", ...attributes }, text, ...children);

/**
 * @param {string | null} className
 * @param {...Child} children
 */
export const div = (className, ...children) => make("div", { class: className }, ...children);
/**
 * @param {string | null} className
 * @param {...Child} children
 */
export const span = (className, ...children) => make("span", { class: className }, ...children);
/**
 * Create a paragraph in the muted text colour.
 * @param {...Child} children
 */
export const mutedLine = (...children) => make("p", { class: "muted" }, ...children);

/**
 * @param {string} subject
 * @param {() => void} onclick
 */
export function saveButton(subject, onclick) {
  const label = `Save ${subject} as PNG`;
  return button("Save", { title: label, "aria-label": label, onclick });
}

/** Create a button that dispatches "retry", on which failed tasks run again. */
export const retryButton = () =>
  button("Try again", { onclick: () => document.dispatchEvent(new Event("retry")) });

/**
 * Show a text in place of missing content, with a retry button if wanted; null hides the note.
 * @param {HTMLElement} note
 * @param {string | null} text
 */
export function showNote(note, text, canRetry = false) {
  note.hidden = !text;
  note.replaceChildren(text ?? "", ...(canRetry ? [retryButton()] : []));
}

/**
 * Steps to the right and down for each arrow key.
 * @type {Record<string, [number, number] | undefined>}
 */
export const ARROW_DIRECTIONS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};

/**
 * Return whether a key is pressed with a modifier, as in shortcuts of the browser.
 * @param {KeyboardEvent} event
 */
export const hasModifier = (event) => event.ctrlKey || event.metaKey || event.altKey;

/**
 * Return [value, text] pairs for `select` whose texts are the values.
 * @param {string[]} values
 * @returns {[string, string][]}
 */
export const makePairs = (values) => values.map((value) => [value, value]);

/**
 * Create a select element from [value, text] pairs; `onSelect` receives the selected value.
 * @param {[string, string][]} pairs
 * @param {(value: string) => void} onSelect
 */
export function select(pairs, onSelect) {
  const options = pairs.map(([value, text]) => make("option", { value }, text));
  const control = make("select", { onchange: () => onSelect(control.value) }, ...options);
  return control;
}

/**
 * Create a slider from 0 to 1; `onMove` receives the number.
 * @param {(value: number) => void} onMove
 */
export function slider(onMove) {
  const oninput = () => onMove(Number(control.value));
  const control = make("input", { type: "range", min: 0, max: 1, step: 0.05, oninput });
  return control;
}

/** The progress of a long computation, with a button that cancels it. */
export class Progress {
  /** @param {() => void} onCancel */
  constructor(onCancel) {
    this.text = make("span", { role: "status" });
    this.bar = make("progress", { max: 1, "aria-label": "Progress" });
    this.element = make("div", { class: "progress", hidden: true },
      this.text, this.bar, button("Cancel", { onclick: onCancel }));
  }

  /**
   * Show the progress of a computation; null hides it.
   * @param {Api.Progress | null} progress
   */
  show(progress) {
    this.element.hidden = !progress;
    if (!progress) return;
    const { state, done, total } = progress;
    const isKnown = state === "running" && total > 1;
    this.bar.toggleAttribute("value", isKnown);
    this.text.textContent = state === "waiting" ? "Waiting…" : "Computing…";
    if (!isKnown) return;
    this.bar.value = done / total;
    const counts = `${done.toLocaleString("en")} of ${total.toLocaleString("en")}`;
    this.text.textContent = `${formatPercent(done / total)} (${counts})`;
  }
}

/**
 * Create a definition list from [name, value] pairs.
 * @param {[Child, Child][]} pairs
 */
export function definitionList(pairs) {
  /** @param {[Child, Child]} pair */
  const makeItems = ([name, value]) => [make("dt", {}, name), make("dd", {}, value)];
  return make("dl", {}, ...pairs.flatMap(makeItems));
}

/**
 * Create a canvas that is not part of the page.
 * @param {number} width
 * @param {number} height
 */
export const createCanvas = (width, height) =>
  Object.assign(document.createElement("canvas"), { width, height });

/**
 * Return the drawing context of a canvas.
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasRenderingContext2DSettings} [settings]
 */
export function getContext(canvas, settings) {
  const context = canvas.getContext("2d", settings);
  if (!context) throw new Error("this browser cannot draw on a canvas");
  return context;
}

/**
 * Create a label element with a name above a control.
 * @param {string} name
 * @param {HTMLElement} control
 * @param {Attributes} [attributes]
 */
export function field(name, control, attributes = {}) {
  const input = control.matches("select, input") ? control : control.querySelector("select, input");
  // The text of the label element includes all options of a select.
  if (input) input.ariaLabel = name;
  return make("label", { class: "field", ...attributes }, make("span", {}, name), control);
}

/**
 * Create a labelled control for an option, with the help text of the option as tooltip.
 * @param {string} name
 * @param {Api.Control} definition
 * @param {HTMLElement} control
 * @param {Attributes} [attributes]
 */
export function optionField(name, { help, empty_meaning: emptyMeaning }, control, attributes = {}) {
  const title = emptyMeaning ? `${help} Empty: ${emptyMeaning}.` : help;
  return field(name, control, { title, ...attributes });
}

/**
 * Format a number with four significant digits, null as a dash.
 * @param {number | null | undefined} value
 */
export function formatNumber(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const magnitude = Math.abs(value);
  const text = magnitude >= 1e5 || magnitude < 1e-3
    ? value.toExponential(2) : String(+value.toPrecision(4));
  return text.replace("-", "−");
}

/**
 * Format a fraction as a percentage with one decimal; only 0 and 1 become 0.0% and 100.0%.
 * @param {number | null | undefined} fraction
 */
export function formatPercent(fraction) {
  if (fraction === null || fraction === undefined) return "–";
  const value = 100 * fraction;
  if (value > 0 && value < 0.05) return "<0.1%";
  if (value < 100 && value >= 99.95) return ">99.9%";
  return `${value.toFixed(1)}%`;
}

/**
 * Format a number of bytes, from 1 MiB on in MiB.
 * @param {number} bytes
 */
export const formatBytes = (bytes) => (bytes < 2 ** 20
  ? formatCount(bytes, "byte") : `${+(bytes / 2 ** 20).toFixed(1)} MiB`);

/**
 * Format a count with its noun, such as "1 layer" or "2 layers".
 * @param {number} count
 * @param {string} noun
 */
export const formatCount = (count, noun) =>
  `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/**
 * Format a shape without its batch axis, such as "112 × 112 × 32".
 * @param {(number | null)[]} shape
 */
export const formatShape = (shape) =>
  shape.slice(1).map((length) => length ?? "?").join(" × ") || "scalar";

/**
 * Return a function that calls `action` once, `delay` milliseconds after its last call.
 * @template {unknown[]} Arguments
 * @param {number} delay
 * @param {(...args: Arguments) => void} action
 * @returns {(...args: Arguments) => void}
 */
export function debounce(delay, action) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...args), delay);
  };
}

/**
 * Announce a text to screen readers.
 * @param {string} text
 */
export function announce(text) {
  byId("status").textContent = text;
}

/**
 * Show a message for some seconds.
 * @param {string} text
 * @param {"note" | "error"} [kind]
 */
export function showToast(text, kind = "note") {
  const close = () => box.remove();
  const box = make("div", { class: `toast ${kind}` }, make("span", {}, text),
    button("×", { "aria-label": "Dismiss", onclick: close }));
  byId("toasts").append(box);
  announce(text);
  setTimeout(close, kind === "error" ? 12000 : 6000);
}
