/** The state of the view, stored in the hash of the address so that a link opens the same view. */

import { debounce } from "./dom.js";

/** @typedef {{x: number, y: number, scale: number}} Viewport */

/**
 * @typedef {object} State
 * @property {"graph" | "view" | "images"} pane Part of the page on a narrow screen.
 * @property {"layer" | "heads" | "heatmap" | "methods" | "models"} tab
 * @property {string | null} image Id of the image.
 * @property {string} layer Path of the layer.
 * @property {number | null} channel Channel of the channel view; null for the layer view.
 * @property {string | null} compare Id of the second image.
 * @property {string} normalize
 * @property {string} scope
 * @property {string} order
 * @property {string} cmap
 * @property {"all" | "dead" | "live"} show
 * @property {number | null} columns
 * @property {Viewport | null} view Visible part of the layer; null for the whole layer.
 * @property {string | null} off Channels that are switched off, such as "4:0,3;9:1".
 * @property {"layer" | "difference"} sort Whether two models are sorted by their difference.
 * @property {number | null} head Attention head; null for the mean of all heads.
 * @property {number | null} query Query whose attention is shown; null for the first query.
 * @property {number} blend Weight of the channel over the image, 0 to 1.
 * @property {string | null} method
 * @property {string | null} methods Compared methods, separated by commas; null for the default.
 * @property {"on" | "off"} scores Whether the compared methods are scored.
 * @property {string} target
 * @property {string | null} over Path of the heatmap's layer.
 * @property {number} alpha Weight of the heatmap, 0 to 1.
 * @property {string | null} colours Colormap of the heatmap.
 * @property {string[]} open Names of the open groups.
 */

/**
 * @typedef {object} Codec
 * @property {(text: string) => any} read
 * @property {(value: any) => string} write
 */

// Each parameter has a codec: `read` returns undefined for a text that is not valid.
/** @type {Codec} */
const text = { read: (value) => value, write: (value) => value };
/** @type {Codec} */
const integer = {
  read: (value) => (/^\d{1,9}$/.test(value) ? Number(value) : undefined),
  write: String,
};
/**
 * Image ids become parts of paths, so only hexadecimal digits are accepted.
 * @type {Codec}
 */
const imageId = { ...text, read: (value) => (/^[\da-f]+$/.test(value) ? value : undefined) };
/** @type {Codec} */
const fraction = {
  read: (value) => {
    const number = value === "" ? NaN : Number(value);
    return number >= 0 && number <= 1 ? number : undefined;
  },
  write: (value) => String(+value.toFixed(3)),
};
/**
 * @param {...string} names
 * @returns {Codec}
 */
const choiceOf = (...names) => ({
  ...text,
  read: (value) => (names.includes(value) ? value : undefined),
});
/**
 * Centre of the view in picture pixels, and the number of screen pixels per picture pixel.
 * @type {Codec}
 */
const viewport = {
  read: (value) => {
    const numbers = value.split(",").map(Number);
    return numbers.length === 3 && numbers.every(Number.isFinite) && numbers[2] > 0
      ? { x: numbers[0], y: numbers[1], scale: numbers[2] } : undefined;
  },
  write: ({ x, y, scale }) => [x, y, scale].join(","),
};

/**
 * Name, default value and codec of each hash parameter. `setDefaults` replaces the defaults of
 * options by those of the model.
 * @type {Record<string, [any, Codec]>}
 */
const PARAMETERS = {
  pane: ["view", choiceOf("graph", "view", "images")],
  tab: ["layer", choiceOf("layer", "heads", "heatmap", "methods", "models")],
  image: [null, imageId],
  layer: [null, text],
  channel: [null, integer],
  compare: [null, imageId],
  normalize: [null, text],
  scope: [null, text],
  order: [null, text],
  cmap: [null, text],
  show: ["all", choiceOf("all", "dead", "live")],
  columns: [null, integer],
  view: [null, viewport],
  off: [null, text],
  sort: ["layer", choiceOf("layer", "difference")],
  head: [null, integer],
  query: [null, integer],
  blend: [0.6, fraction],
  method: [null, text],
  methods: [null, text],
  scores: ["on", choiceOf("on", "off")],
  target: ["predicted", text],
  over: [null, text],
  alpha: [null, fraction],
  colours: [null, text],
};
/** Parameter with the names of the open groups; ["*"] means all groups. */
const OPEN = "open";

let current = defaults();

/**
 * Set the values of parameters that are not in the hash, such as the first image and layer.
 * @param {Partial<State>} values
 */
export function setDefaults(values) {
  for (const [name, value] of Object.entries(values)) PARAMETERS[name][0] = value;
  current = defaults();
}

/** @returns {State} */
export function defaults() {
  const values = Object.entries(PARAMETERS).map(([name, [value]]) => [name, value]);
  return { ...Object.fromEntries(values), open: [] };
}

/**
 * Parse a hash; return the state and a list of the parameters that are not valid.
 * @param {string} hash
 */
export function parseHash(hash) {
  const parameters = new URLSearchParams(hash.replace(/^#/, ""));
  const state = defaults();
  const invalid = [];
  /** @type {Record<string, unknown>} */
  const values = {};
  for (const name of new Set(parameters.keys())) {
    if (name === OPEN) {
      state.open = parameters.getAll(OPEN);
      continue;
    }
    const written = parameters.get(name) ?? "";
    const value = PARAMETERS[name]?.[1].read(written);
    if (value === undefined) invalid.push(`${name}=${written}`);
    else values[name] = value;
  }
  return { state: Object.assign(state, values), invalid };
}

/**
 * Format a state as a hash, without the parameters that have their default values.
 * @param {State} state
 */
export function formatHash(state) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (name === OPEN) continue;
    const [defaultValue, codec] = PARAMETERS[name];
    if (value !== defaultValue && value !== null) parameters.set(name, codec.write(value));
  }
  for (const name of state.open) parameters.append(OPEN, name);
  return parameters.toString();
}

/** @type {(state: State) => void} */
let onChange = () => {};

export const getState = () => current;

/** @param {string} hash */
const formatUrl = (hash) => location.href.replace(/#.*$/, "") + (hash ? `#${hash}` : "");
/** @param {string} hash */
const replaceHash = (hash) => history.replaceState(null, "", formatUrl(hash));
// Browsers limit the rate of history changes, which dragging would exceed.
const replaceHashLater = debounce(250, () => replaceHash(formatHash(current)));

/**
 * Change parts of the state, in a new entry of the browser history or in the current entry.
 * @param {Partial<State>} changes
 * @param {{newEntry?: boolean}} [options]
 */
export function updateState(changes, { newEntry = true } = {}) {
  const before = formatHash(current);
  current = { ...current, ...changes };
  const after = formatHash(current);
  if (after === before) return;
  if (newEntry) {
    replaceHash(before);
    history.pushState(null, "", formatUrl(after));
  } else {
    replaceHashLater();
  }
  onChange(current);
}

/** Write the state to the address without delay, so that no deleted image remains in it. */
export const writeHash = () => replaceHash(formatHash(current));

/**
 * Show the state of the address now and after each step in the history. `validate` returns a state
 * in which all names exist.
 * @param {(state: State, invalid: string[]) => State} validate
 * @param {(state: State) => void} show
 */
export function start(validate, show) {
  onChange = show;
  const readAddress = () => {
    const { state, invalid } = parseHash(location.hash);
    current = validate(state, invalid);
    replaceHash(formatHash(current));
    onChange(current);
  };
  window.addEventListener("popstate", readAddress);
  readAddress();
}
