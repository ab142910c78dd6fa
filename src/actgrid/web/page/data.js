/** What comes from the server or the files of an export: each thing once, while it is wanted. */

import { decodeLevels } from "./levels.js";
import { askToken, authorization, currentToken } from "./token.js";

const POLL = 400; // milliseconds between two questions for progress
const STEPS = 64; // of maximizing a channel: few, as somebody waits for it

/** Something that did not come; status 0: nobody answered. */
export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** What `fetch` says where nobody answers, or no longer: in the middle of an answer. */
const gone = (error) =>
  (error instanceof TypeError ? new Failure("The server does not answer.", 0) : error);

/** Ask for a path relative to the page; a Failure says what the server said was wrong. */
export async function request(path, { headers = {}, ...options } = {}) {
  let response;
  let used;
  do {
    used = currentToken();
    try {
      response = await fetch(path, { ...options, headers: { ...headers, ...authorization() } });
    } catch (error) {
      throw gone(error);
    }
  } while (wantsToken(response) && await askToken(used));
  if (response.ok) return response;
  if (wantsToken(response)) throw new Failure("The server asks for a token.", response.status);
  const told = await response.json().catch(() => ({}));
  const detail = typeof told.detail === "string" ? told.detail : response.statusText;
  throw new Failure(detail || `The server answered ${response.status}.`, response.status);
}

const wantsToken = ({ status, headers }) =>
  status === 401 && headers.get("www-authenticate")?.startsWith("Bearer");

/**
 * Keeps what was fetched last, up to so many bytes. Those who want the same thing share one
 * request; it is broken off when none of them waits any more.
 */
class Store {
  constructor(bytes, decode, dropped = () => {}) {
    Object.assign(this, { bytes, decode, dropped, used: 0, entries: new Map() });
  }

  async get(path, signal) {
    signal?.throwIfAborted();
    const entry = this.entries.get(path) ?? this.fetch(path);
    this.entries.delete(path);
    this.entries.set(path, entry); // the last used is the last
    if (entry.done) return entry.value;
    entry.waiting += 1;
    return new Promise((resolve, reject) => {
      const leave = () => {
        entry.waiting -= 1;
        if (entry.waiting === 0 && !entry.done) this.drop(path, entry);
        reject(signal.reason);
      };
      signal?.addEventListener("abort", leave, { once: true });
      entry.promise.then(resolve, reject)
        .finally(() => signal?.removeEventListener("abort", leave));
    });
  }

  fetch(path) {
    const controller = new AbortController();
    const entry = { controller, waiting: 0, size: 0, done: false };
    entry.promise = request(path, { signal: controller.signal }).then(this.decode).then(
      ({ value, size }) => {
        if (this.entries.get(path) === entry) this.keep(entry, value, size);
        return value;
      },
      (error) => {
        this.drop(path, entry);
        throw gone(error);
      },
    );
    entry.promise.catch(() => {});
    return entry;
  }

  keep(entry, value, size) {
    Object.assign(entry, { value, size, done: true });
    this.used += size;
    for (const [path, oldest] of this.entries) {
      if (this.used <= this.bytes || oldest === entry) break;
      if (oldest.done) this.drop(path, oldest);
    }
  }

  /** Drop all that came for an image. */
  forget(image) {
    for (const [path, entry] of [...this.entries]) {
      if (path.includes(`images/${image}/`)) this.drop(path, entry);
    }
  }

  drop(path, entry) {
    if (this.entries.get(path) !== entry) return;
    this.entries.delete(path);
    this.used -= entry.size;
    if (entry.done) this.dropped(entry.value);
    else entry.controller.abort();
  }
}

const MEGABYTE = 2 ** 20;

const jsons = new Store(32 * MEGABYTE, async (response) => {
  const text = await response.text();
  return { value: JSON.parse(text), size: 2 * text.length };
});
const levelses = new Store(128 * MEGABYTE, async (response) => {
  const value = await decodeLevels(await response.blob());
  return { value, size: value.data.length };
});
const bitmaps = new Store(32 * MEGABYTE, async (response) => {
  const value = await createImageBitmap(await response.blob());
  return { value, size: 4 * value.width * value.height };
});
const addresses = new Store(64 * MEGABYTE, async (response) => {
  const blob = await response.blob();
  return { value: URL.createObjectURL(blob), size: blob.size };
}, URL.revokeObjectURL);

export const json = (path, signal) => jsons.get(path, signal);
/** {width, height, data}: a grayscale PNG's bytes, exactly. */
export const levels = (path, signal) => levelses.get(path, signal);
export const bitmap = (path, signal) => bitmaps.get(path, signal);
/** An address for an <img>; a plain one could not carry the token. */
export const picture = (path, signal) => addresses.get(path, signal);

/** Remove an uploaded image, here and from the server. */
export async function remove(image) {
  await request(`api/images/${image}`, { method: "DELETE" });
  for (const store of [jsons, levelses, bitmaps, addresses]) store.forget(image);
}

/** Call `show` with {state, done, total} of a long computation now and then, until aborted. */
export async function follow(path, signal, show) {
  while (!signal.aborted) {
    await new Promise((resolve) => { setTimeout(resolve, POLL); });
    if (signal.aborted) return;
    // Progress that does not come is no failure: the result itself tells.
    const response = await request(path, { signal }).catch(() => null);
    const progress = await response?.json().catch(() => null);
    if (progress && !signal.aborted) show(progress);
  }
}

/** Send an image; return its {id, name, uploaded}. */
export async function upload(blob, name) {
  const response = await request(`api/images?name=${encodeURIComponent(name)}`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: blob,
  });
  return response.json();
}

/** Where things are. */
export const paths = {
  model: "api/model.json",
  images: (offset, limit) => `api/images.json?offset=${offset}&limit=${limit}`,
  thumbnail: (image) => `api/images/${image}/thumbnail.jpg`,
  picture: (image) => `api/images/${image}/picture.png`,
  classes: (image) => `api/images/${image}/classes.json`,
  layers: (image) => `api/images/${image}/layers.json`,
  sprite: (image) => `api/images/${image}/layers.png`,
  layer: (image, layer) => `api/images/${image}/layers/${layer}.json`,
  levels: (image, layer, normalize, scope) =>
    `api/images/${image}/layers/${layer}/${encodeURIComponent(normalize)}/${scope}.png`,
  histograms: (image, layer) => `api/images/${image}/layers/${layer}/histograms.json`,
  heatmap: (image, method, target, layer, kind) =>
    `api/images/${image}/heatmaps/${method}/${encodeURIComponent(target)}${kind}`
      + (layer === null ? "" : `?layer=${layer}`),
  kernel: (layer, kind) => `api/layers/${layer}/kernel.${kind}`,
  dataset: (layer) => `api/layers/${layer}/dataset.json`,
  maximized: (layer, channel, kind) =>
    `api/layers/${layer}/channels/${channel}/maximized${kind}?steps=${STEPS}`,
};

/** Work of which only the last wish counts: a new one breaks the former off. */
export class Task {
  constructor(failed) {
    Object.assign(this, { failed, key: null, controller: null });
    document.addEventListener("again", () => {
      if (this.broken) this.stop();
    });
  }

  /** Do the work unless it is already being done, or done, for this key. */
  async run(key, work) {
    if (key === this.key) return;
    this.stop();
    const controller = new AbortController();
    Object.assign(this, { key, controller, broken: false });
    try {
      await work(controller.signal);
    } catch (error) {
      if (controller.signal.aborted) return;
      this.broken = true;
      this.failed(error);
    }
  }

  stop() {
    this.controller?.abort();
    Object.assign(this, { key: null, controller: null });
  }
}

/** Show that the server is gone, with a way to try again. */
export function lost(error) {
  if (error.status === 0) {
    document.dispatchEvent(new CustomEvent("lost", { detail: error.message }));
  }
}
