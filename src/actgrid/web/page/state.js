/** The state of the view, stored in the hash of the address so that a link opens the same view. */

import { debounce } from "./dom.js";

// Each parameter has a codec: `read` returns undefined for a text that is not valid.
const text = { read: (value) => value, write: (value) => value };
const integer = {
  read: (value) => (/^\d{1,9}$/.test(value) ? Number(value) : undefined),
  write: String,
};
/** Image ids become parts of paths, so only hexadecimal digits are accepted. */
const imageId = { ...text, read: (value) => (/^[\da-f]+$/.test(value) ? value : undefined) };
const fraction = {
  read: (value) => (value !== "" && value >= 0 && value <= 1 ? Number(value) : undefined),
  write: (value) => String(+value.toFixed(3)),
};
const choiceOf = (...names) => ({
  ...text,
  read: (value) => (names.includes(value) ? value : undefined),
});
/** Centre of the view in picture pixels, and the number of screen pixels per picture pixel. */
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
 */
const PARAMETERS = {
  pane: ["view", choiceOf("graph", "view", "images")],
  tab: ["layer", choiceOf("layer", "heatmap")],
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
  blend: [0.6, fraction],
  method: [null, text],
  target: ["predicted", text],
  over: [null, text],
  alpha: [null, fraction],
  colours: [null, text],
};
/** Parameter with the names of the open groups; ["*"] means all groups. */
const OPEN = "open";

let current = defaults();

/** Set the values of parameters that are not in the hash, such as the first image and layer. */
export function setDefaults(values) {
  for (const [name, value] of Object.entries(values)) PARAMETERS[name][0] = value;
  current = defaults();
}

export function defaults() {
  const values = Object.entries(PARAMETERS).map(([name, [value]]) => [name, value]);
  const state = Object.fromEntries(values);
  return { ...state, open: [] };
}

/** Parse a hash; return the state and a list of the parameters that are not valid. */
export function parseHash(hash) {
  const parameters = new URLSearchParams(hash.replace(/^#/, ""));
  const state = defaults();
  const invalid = [];
  for (const name of new Set(parameters.keys())) {
    if (name === OPEN) {
      state.open = parameters.getAll(OPEN);
      continue;
    }
    const value = PARAMETERS[name]?.[1].read(parameters.get(name));
    if (value === undefined) invalid.push(`${name}=${parameters.get(name)}`);
    else state[name] = value;
  }
  return { state, invalid };
}

/** Format a state as a hash, without the parameters that have their default values. */
export function formatHash(state) {
  const parameters = new URLSearchParams();
  for (const [name, [value, codec]] of Object.entries(PARAMETERS)) {
    if (state[name] !== value && state[name] !== null) {
      parameters.set(name, codec.write(state[name]));
    }
  }
  for (const name of state.open) parameters.append(OPEN, name);
  return parameters.toString();
}

let onChange = () => {};

export const getState = () => current;

const formatUrl = (hash) => location.pathname + location.search + (hash ? `#${hash}` : "");
const replaceHash = (hash) => history.replaceState(null, "", formatUrl(hash));
// Browsers limit the rate of history changes, which dragging would exceed.
const replaceHashLater = debounce(250, () => replaceHash(formatHash(current)));

/** Change parts of the state, in a new entry of the browser history or in the current entry. */
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
