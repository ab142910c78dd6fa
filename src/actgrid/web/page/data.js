/** Requests to the server, or to the files of an export, with caches of the responses. */

import { decodeLevels } from "./levels.js";
import { authorizationHeaders, currentToken, requestToken } from "./token.js";

const POLL_INTERVAL = 400; // milliseconds between two requests for progress
const STEPS = 64; // gradient steps of maximizing a channel: few, as the user waits for the result

/** A failed request, with the HTTP status; status 0 if the server did not answer. */
export class RequestError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Convert the TypeError of `fetch` after a lost connection; it may come in mid-response, too. */
const convertError = (error) =>
  (error instanceof TypeError ? new RequestError("The server does not answer.", 0) : error);

/** Request a path relative to the page; a RequestError has the message of the server. */
export async function request(path, { headers = {}, ...options } = {}) {
  let response;
  let token;
  do {
    token = currentToken();
    try {
      const allHeaders = { ...headers, ...authorizationHeaders() };
      response = await fetch(path, { ...options, headers: allHeaders });
    } catch (error) {
      throw convertError(error);
    }
  } while (needsToken(response) && await requestToken(token));
  if (response.ok) return response;
  if (needsToken(response)) throw new RequestError("The server requires a token.", response.status);
  const body = await response.json().catch(() => ({}));
  const detail = typeof body.detail === "string" ? body.detail : response.statusText;
  const message = detail || `The server answered with status ${response.status}.`;
  throw new RequestError(message, response.status);
}

const needsToken = ({ status, headers }) =>
  status === 401 && headers.get("www-authenticate")?.startsWith("Bearer");

/**
 * A cache of decoded responses that discards the least recently used above `maxBytes`. Concurrent
 * calls for one path share a request, which is aborted once no caller waits for it any more.
 */
class ResponseCache {
  constructor(maxBytes, decode, release = () => {}) {
    Object.assign(this, { maxBytes, decode, release, usedBytes: 0, entries: new Map() });
  }

  async get(path, signal) {
    signal?.throwIfAborted();
    const entry = this.entries.get(path) ?? this.fetch(path);
    this.entries.delete(path);
    this.entries.set(path, entry); // the most recently used entry is the last
    if (entry.done) return entry.value;
    entry.waiters += 1;
    return new Promise((resolve, reject) => {
      const leave = () => {
        entry.waiters -= 1;
        if (entry.waiters === 0 && !entry.done) this.drop(path, entry);
        reject(signal.reason);
      };
      signal?.addEventListener("abort", leave, { once: true });
      entry.promise.then(resolve, reject)
        .finally(() => signal?.removeEventListener("abort", leave));
    });
  }

  fetch(path) {
    const controller = new AbortController();
    const entry = { controller, waiters: 0, size: 0, done: false };
    entry.promise = request(path, { signal: controller.signal }).then(this.decode).then(
      ({ value, size }) => {
        if (this.entries.get(path) === entry) this.store(entry, value, size);
        return value;
      },
      (error) => {
        this.drop(path, entry);
        throw convertError(error);
      },
    );
    entry.promise.catch(() => {});
    return entry;
  }

  store(entry, value, size) {
    Object.assign(entry, { value, size, done: true });
    this.usedBytes += size;
    for (const [path, oldest] of this.entries) {
      if (this.usedBytes <= this.maxBytes || oldest === entry) break;
      if (oldest.done) this.drop(path, oldest);
    }
  }

  /** Discard all entries of an image. */
  dropImage(image) {
    for (const [path, entry] of [...this.entries]) {
      if (path.includes(`images/${image}/`)) this.drop(path, entry);
    }
  }

  drop(path, entry) {
    if (this.entries.get(path) !== entry) return;
    this.entries.delete(path);
    this.usedBytes -= entry.size;
    if (entry.done) this.release(entry.value);
    else entry.controller.abort();
  }
}

const MEBIBYTE = 2 ** 20;

const jsonCache = new ResponseCache(32 * MEBIBYTE, async (response) => {
  const text = await response.text();
  return { value: JSON.parse(text), size: 2 * text.length };
});
const levelCache = new ResponseCache(128 * MEBIBYTE, async (response) => {
  const value = await decodeLevels(await response.blob());
  return { value, size: value.data.length };
});
const bitmapCache = new ResponseCache(32 * MEBIBYTE, async (response) => {
  const value = await createImageBitmap(await response.blob());
  return { value, size: 4 * value.width * value.height };
});
const imageUrlCache = new ResponseCache(64 * MEBIBYTE, async (response) => {
  const blob = await response.blob();
  return { value: URL.createObjectURL(blob), size: blob.size };
}, URL.revokeObjectURL);

export const loadJson = (path, signal) => jsonCache.get(path, signal);
/** Load a grayscale PNG as {width, height, data}, with its exact bytes. */
export const loadLevels = (path, signal) => levelCache.get(path, signal);
export const loadBitmap = (path, signal) => bitmapCache.get(path, signal);
/** Load an image as an object URL for <img>, whose own requests could not send the token. */
export const loadImageUrl = (path, signal) => imageUrlCache.get(path, signal);

/** Delete an uploaded image from the server and from the caches. */
export async function deleteImage(image) {
  await request(`api/images/${image}`, { method: "DELETE" });
  for (const cache of [jsonCache, levelCache, bitmapCache, imageUrlCache]) cache.dropImage(image);
}

/** Call `show` with the {state, done, total} of a computation at intervals, until aborted. */
export async function pollProgress(path, signal, show) {
  while (!signal.aborted) {
    await new Promise((resolve) => { setTimeout(resolve, POLL_INTERVAL); });
    if (signal.aborted) return;
    // A failed request for progress is ignored: the request for the result reports errors.
    const response = await request(path, { signal }).catch(() => null);
    const progress = await response?.json().catch(() => null);
    if (progress && !signal.aborted) show(progress);
  }
}

/** Upload an image; return its {id, name, uploaded}. */
export async function uploadImage(blob, name) {
  const response = await request(`api/images?name=${encodeURIComponent(name)}`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: blob,
  });
  return response.json();
}

/** Paths of the resources, relative to the page. */
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

/** A task of which only the latest run counts: a new run aborts the one before. */
export class LatestTask {
  constructor(onError) {
    Object.assign(this, { onError, key: null, controller: null });
    document.addEventListener("retry", () => {
      if (this.hasFailed) this.stop();
    });
  }

  /** Run `action` unless it is running, or has run, for this key. */
  async run(key, action) {
    if (key === this.key) return;
    this.stop();
    const controller = new AbortController();
    Object.assign(this, { key, controller, hasFailed: false });
    try {
      await action(controller.signal);
    } catch (error) {
      if (controller.signal.aborted) return;
      this.hasFailed = true;
      this.onError(error);
    }
  }

  stop() {
    this.controller?.abort();
    Object.assign(this, { key: null, controller: null });
  }
}

/** Report an error to the page if the server does not answer. */
export function reportLostConnection(error) {
  if (error.status === 0) {
    document.dispatchEvent(new CustomEvent("connection-lost", { detail: error.message }));
  }
}
