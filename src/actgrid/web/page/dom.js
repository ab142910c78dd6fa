/** Elements, and numbers as text. */

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** Make an element; all text goes in as text, for names of files and layers may hold anything. */
export function make(tag, attributes = {}, ...inside) {
  const element = tag.startsWith("svg:")
    ? document.createElementNS(SVG, tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...inside.filter((part) => part !== null && part !== undefined));
  return element;
}

export const button = (text, attributes, ...inside) =>
  make("button", { type: "button", ...attributes }, text, ...inside);

export const div = (kind, ...inside) => make("div", { class: kind }, ...inside);
export const span = (kind, ...inside) => make("span", { class: kind }, ...inside);
/** A quiet line of text. */
export const soft = (...inside) => make("p", { class: "soft" }, ...inside);

export const saveButton = (what, onclick) =>
  button("Save", { title: `Save ${what} as PNG`, "aria-label": `Save ${what} as PNG`, onclick });

/** What went wrong can be tried again: whoever failed listens. */
export const againButton = () =>
  button("Try again", { onclick: () => document.dispatchEvent(new Event("again")) });

/** Fill a note, which stands where there is nothing to show; null hides it. */
export function say(note, text, retry = false) {
  note.hidden = !text;
  note.replaceChildren(text ?? "", ...(retry ? [againButton()] : []));
}

export const ARROWS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};

/** Keys pressed with one of these are the browser's. */
export const withModifier = (event) => event.ctrlKey || event.metaKey || event.altKey;

/** A select of [value, text] pairs; `chosen` is called with the value. */
export function select(pairs, chosen) {
  const options = pairs.map(([value, text]) => make("option", { value }, text));
  const control = make("select", { onchange: () => chosen(control.value) }, ...options);
  return control;
}

/** A slider from 0 to 1. */
export function slider(moved) {
  const oninput = () => moved(Number(control.value));
  const control = make("input", { type: "range", min: 0, max: 1, step: 0.05, oninput });
  return control;
}

/** How far a long computation is, with a button that cancels it. */
export class Progress {
  constructor(cancel) {
    this.text = make("span", { role: "status" });
    this.bar = make("progress", { max: 1, "aria-label": "Progress" });
    this.element = make("div", { class: "progress", hidden: true },
      this.text, this.bar, button("Cancel", { onclick: cancel }));
  }

  /** Show {state, done, total}; null hides it. */
  show(progress) {
    this.element.hidden = !progress;
    if (!progress) return;
    const { state, done, total } = progress;
    const known = state === "running" && total > 1;
    this.bar.toggleAttribute("value", known);
    if (known) this.bar.value = done / total;
    const text = known
      ? `${percent(done / total)} (${done.toLocaleString("en")} of ${total.toLocaleString("en")})`
      : "Computing…";
    this.text.textContent = state === "waiting" ? "Waiting…" : text;
  }
}

/** A list of names and values, given as pairs. */
export function terms(lines) {
  const pair = ([name, value]) => [make("dt", {}, name), make("dd", {}, value)];
  return make("dl", {}, ...lines.flatMap(pair));
}

/** A canvas that is not on the page. */
export const blank = (width, height) =>
  Object.assign(document.createElement("canvas"), { width, height });

/** A control under its name. */
export function field(name, control, attributes = {}) {
  const named = control.matches("select, input") ? control : control.querySelector("select, input");
  named.ariaLabel = name; // the label's own text would tell all options, too
  return make("label", { class: "field", ...attributes }, make("span", {}, name), control);
}

/** A control of an option, with the option's help as its title. */
export function optionField(name, { help, none }, control, attributes = {}) {
  const title = none ? `${help} Empty: ${none}.` : help;
  return field(name, control, { title, ...attributes });
}

/** Four significant digits; a dash for what is not a number. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(+value.toPrecision(4));
  return text.replace("-", "−");
}

/** A fraction in percent with one decimal; only 0 and 1 themselves are written as 0.0% and 100.0%. */
export function percent(fraction) {
  if (fraction === null || fraction === undefined) return "–";
  const value = 100 * fraction;
  if (value > 0 && value < 0.05) return "<0.1%";
  if (value < 100 && value >= 99.95) return ">99.9%";
  return `${value.toFixed(1)}%`;
}

/** A number of bytes: in MiB from one on. */
export const sizeText = (bytes) => (bytes < 2 ** 20
  ? counted(bytes, "byte") : `${+(bytes / 2 ** 20).toFixed(1)} MiB`);

export const counted = (count, word) =>
  `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

/** A shape as it is read: without the batch, which is always open. */
export const shapeText = (shape) =>
  shape.slice(1).map((side) => side ?? "?").join(" × ") || "scalar";

/** Call once after the calls have stopped coming for a while. */
export function settled(delay, work) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), delay);
  };
}

/** Say something to those who do not see the page. */
export function announce(text) {
  byId("status").textContent = text;
}

/** Show a message for a while. */
export function toast(text, kind = "note") {
  const close = () => box.remove();
  const box = make("div", { class: `toast ${kind}` }, make("span", {}, text),
    button("×", { "aria-label": "Dismiss", onclick: close }));
  byId("toasts").append(box);
  announce(text);
  setTimeout(close, kind === "error" ? 12000 : 6000);
}
