/** What is looked at: one object, kept in the address so that a link opens the same view. */

import { settled } from "./dom.js";

const text = { read: (value) => value, write: (value) => value };
const whole = {
  read: (value) => (/^\d{1,9}$/.test(value) ? Number(value) : undefined),
  write: String,
};
/** Ids of images become parts of paths: they are nothing but hexadecimal digits. */
const id = { ...text, read: (value) => (/^[\da-f]+$/.test(value) ? value : undefined) };
const share = {
  read: (value) => (value !== "" && value >= 0 && value <= 1 ? Number(value) : undefined),
  write: (value) => String(+value.toFixed(3)),
};
const oneOf = (...names) => ({
  ...text,
  read: (value) => (names.includes(value) ? value : undefined),
});
/** Middle of the view in pixels of the picture, and pixels of the screen for each of them. */
const place = {
  read: (value) => {
    const numbers = value.split(",").map(Number);
    return numbers.length === 3 && numbers.every(Number.isFinite) && numbers[2] > 0
      ? { x: numbers[0], y: numbers[1], scale: numbers[2] } : undefined;
  },
  write: ({ x, y, scale }) => [x, y, scale].join(","),
};

/**
 * The name in the address of each part of the state, its default, and how it is written. Options
 * have the defaults of the model's controls, see `setDefaults`.
 */
const PARTS = {
  pane: ["view", oneOf("graph", "view", "images")],
  tab: ["layer", oneOf("layer", "heatmap")],
  image: [null, id],
  layer: [null, text],
  channel: [null, whole],
  compare: [null, id],
  normalize: [null, text],
  scope: [null, text],
  order: [null, text],
  cmap: [null, text],
  show: ["all", oneOf("all", "dead", "live")],
  columns: [null, whole],
  view: [null, place],
  blend: [0.6, share],
  method: [null, text],
  target: ["predicted", text],
  over: [null, text],
  alpha: [null, share],
  colours: [null, text],
};
/** Names of opened groups; ["*"] stands for all of them. */
const OPEN = "open";

let current = defaults();

/** Say what is shown where an address does not tell: the first image, the first layer. */
export function setDefaults(values) {
  for (const [name, value] of Object.entries(values)) PARTS[name][0] = value;
  current = defaults();
}

export function defaults() {
  const state = Object.fromEntries(Object.entries(PARTS).map(([name, [value]]) => [name, value]));
  return { ...state, open: [] };
}

/** Read an address; return the state and what in it could not be understood. */
export function read(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const state = defaults();
  const unknown = [];
  for (const name of new Set(given.keys())) {
    if (name === OPEN) {
      state.open = given.getAll(OPEN);
      continue;
    }
    const value = PARTS[name]?.[1].read(given.get(name));
    if (value === undefined) unknown.push(`${name}=${given.get(name)}`);
    else state[name] = value;
  }
  return { state, unknown };
}

/** Write a state as an address, without what is as it is at first. */
export function write(state) {
  const given = new URLSearchParams();
  for (const [name, [value, kind]] of Object.entries(PARTS)) {
    if (state[name] !== value && state[name] !== null) given.set(name, kind.write(state[name]));
  }
  for (const name of state.open) given.append(OPEN, name);
  return given.toString();
}

let changed = () => {};

export const get = () => current;

const address = (hash) => location.pathname + location.search + (hash ? `#${hash}` : "");
const replace = (hash) => history.replaceState(null, "", address(hash));
// Browsers refuse too many changes in a row, as a drag makes them.
const replaceLater = settled(250, () => replace(write(current)));

/** Change parts of the state: as a step one can go back from, or in place of the present one. */
export function go(changes, { step = true } = {}) {
  const before = write(current);
  current = { ...current, ...changes };
  const after = write(current);
  if (after === before) return;
  if (step) {
    replace(before);
    history.pushState(null, "", address(after));
  } else {
    replaceLater();
  }
  changed(current);
}

/** Write the state into the address at once, as nothing may be left there of what is gone. */
export const writeAddress = () => replace(write(current));

/** Begin: `check` returns a state in which all names are known. */
export function start(check, show) {
  changed = show;
  const open = () => {
    const { state, unknown } = read(location.hash);
    current = check(state, unknown);
    replace(write(current));
    changed(current);
  };
  window.addEventListener("popstate", open);
  open();
}
