/** Requests to the server, or to the files of an export, with caches of the responses. */

import { decodeLevels } from "./levels.js";
import { authorizationHeaders, currentToken, requestToken } from "./token.js";

const POLL_INTERVAL = 400; // milliseconds between two requests for progress
const STEPS = 64; // gradient steps of maximizing a channel: few, as the user waits for the result

/** A failed request, with the HTTP status; status 0 if the server did not answer. */
export class RequestError extends Error {
  /**
   * @param {string} message
   * @param {number} status
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * Convert the TypeError of `fetch` after a lost connection; it may come in mid-response, too.
 * @param {unknown} error
 */
const convertError = (error) =>
  (error instanceof TypeError ? new RequestError("The server does not answer.", 0) : error);

/**
 * Request a path relative to the page; a RequestError has the message of the server.
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
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

/** @param {Response} response */
const needsToken = ({ status, headers }) =>
  status === 401 && headers.get("www-authenticate")?.startsWith("Bearer");

/**
 * A cache of decoded responses that discards the least recently used above `maxBytes`. Concurrent
 * calls for one path share a request, which is aborted once no caller waits for it any more.
 * @template T
 */
class ResponseCache {
  /**
   * @typedef {object} Entry
   * @property {AbortController} controller
   * @property {Promise<T>} promise
   * @property {number} waiters
   * @property {{value: T, size: number} | null} result The decoded response, and its bytes.
   */

  /**
   * @param {number} maxBytes
   * @param {(response: Response) => Promise<{value: T, size: number}>} decode
   * @param {(value: T) => void} [release]
   */
  constructor(maxBytes, decode, release = () => {}) {
    this.maxBytes = maxBytes;
    this.decode = decode;
    this.release = release;
    this.usedBytes = 0;
    /** @type {Map<string, Entry>} */
    this.entries = new Map();
  }

  /**
   * @param {string} path
   * @param {AbortSignal} [signal]
   * @returns {Promise<T>}
   */
  async get(path, signal) {
    signal?.throwIfAborted();
    const entry = this.entries.get(path) ?? this.fetch(path);
    this.entries.delete(path);
    this.entries.set(path, entry); // the most recently used entry is the last
    if (entry.result) return entry.result.value;
    entry.waiters += 1;
    return new Promise((resolve, reject) => {
      const leave = () => {
        entry.waiters -= 1;
        if (entry.waiters === 0 && !entry.result) this.drop(path, entry);
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", leave, { once: true });
      entry.promise.then(resolve, reject)
        .finally(() => signal?.removeEventListener("abort", leave));
    });
  }

  /**
   * @param {string} path
   * @returns {Entry}
   */
  fetch(path) {
    const controller = new AbortController();
    const promise = request(path, { signal: controller.signal }).then(this.decode).then(
      (result) => {
        if (this.entries.get(path) === entry) this.store(entry, result);
        return result.value;
      },
      (error) => {
        this.drop(path, entry);
        throw convertError(error);
      },
    );
    /** @type {Entry} */
    const entry = { controller, promise, waiters: 0, result: null };
    promise.catch(() => {});
    return entry;
  }

  /**
   * @param {Entry} entry
   * @param {{value: T, size: number}} result
   */
  store(entry, result) {
    entry.result = result;
    this.usedBytes += result.size;
    for (const [path, oldest] of this.entries) {
      if (this.usedBytes <= this.maxBytes || oldest === entry) break;
      if (oldest.result) this.drop(path, oldest);
    }
  }

  /**
   * Discard all entries of an image.
   * @param {string} image
   */
  dropImage(image) {
    for (const [path, entry] of [...this.entries]) {
      if (path.includes(`images/${image}/`)) this.drop(path, entry);
    }
  }

  /**
   * @param {string} path
   * @param {Entry} entry
   */
  drop(path, entry) {
    if (this.entries.get(path) !== entry) return;
    this.entries.delete(path);
    if (!entry.result) {
      entry.controller.abort();
      return;
    }
    this.usedBytes -= entry.result.size;
    this.release(entry.result.value);
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
const bytesCache = new ResponseCache(64 * MEBIBYTE, async (response) => {
  const value = new Uint8Array(await response.arrayBuffer());
  return { value, size: value.length };
});
const imageUrlCache = new ResponseCache(64 * MEBIBYTE, async (response) => {
  const blob = await response.blob();
  return { value: URL.createObjectURL(blob), size: blob.size };
}, URL.revokeObjectURL);

/**
 * Load a JSON response; the caller knows its type.
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export const loadJson = (path, signal) => jsonCache.get(path, signal);
/**
 * Load a grayscale PNG with its exact bytes.
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
export const loadLevels = (path, signal) => levelCache.get(path, signal);
/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
export const loadBitmap = (path, signal) => bitmapCache.get(path, signal);
/**
 * Load the bytes of a file.
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
export const loadBytes = (path, signal) => bytesCache.get(path, signal);
/**
 * Load an image as an object URL for <img>, whose own requests could not send the token.
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
export const loadImageUrl = (path, signal) => imageUrlCache.get(path, signal);

/**
 * Delete an uploaded image from the server and from the caches.
 * @param {string} image
 */
export async function deleteImage(image) {
  await request(`api/images/${image}`, { method: "DELETE" });
  const caches = [jsonCache, levelCache, bitmapCache, bytesCache, imageUrlCache];
  for (const cache of caches) cache.dropImage(image);
}

/**
 * Call `show` with the progress of a computation at intervals, until aborted.
 * @param {string} path
 * @param {AbortSignal} signal
 * @param {(progress: Api.Progress) => void} show
 */
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

/**
 * Upload an image; return its description.
 * @param {Blob} blob
 * @param {string} name
 * @returns {Promise<Api.Image>}
 */
export async function uploadImage(blob, name) {
  const response = await request(`api/images?name=${encodeURIComponent(name)}`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: blob,
  });
  return response.json();
}

/** @typedef {string | null} ImageId Id of an image; null in a state without images. */

/** Paths of the resources, relative to the page. */
export const paths = {
  model: "api/model.json",
  /** @type {(offset: number, limit: number) => string} */
  images: (offset, limit) => `api/images.json?offset=${offset}&limit=${limit}`,
  /** @type {(image: ImageId) => string} */
  thumbnail: (image) => `api/images/${image}/thumbnail.jpg`,
  /** @type {(image: ImageId) => string} */
  picture: (image) => `api/images/${image}/picture.png`,
  /** @type {(image: ImageId) => string} */
  classes: (image) => `api/images/${image}/classes.json`,
  /** @type {(image: ImageId, channels: string) => string} */
  ablation: (image, channels) => `api/images/${image}/ablation.json?channels=${channels}`,
  /** @type {(image: ImageId) => string} */
  layers: (image) => `api/images/${image}/layers.json`,
  /** @type {(image: ImageId) => string} */
  sprite: (image) => `api/images/${image}/layers.png`,
  /** @type {(image: ImageId, layer: number) => string} */
  layer: (image, layer) => `api/images/${image}/layers/${layer}.json`,
  /** @type {(image: ImageId, layer: number, normalize: string, scope: string) => string} */
  levels: (image, layer, normalize, scope) =>
    `api/images/${image}/layers/${layer}/${encodeURIComponent(normalize)}/${scope}.png`,
  /** @type {(image: ImageId, layer: number, normalize: string, scope: string) => string} */
  range: (image, layer, normalize, scope) =>
    `api/images/${image}/layers/${layer}/${encodeURIComponent(normalize)}/${scope}.json`,
  /** @type {(image: ImageId, layer: number, kind: string) => string} */
  difference: (image, layer, kind) => `api/images/${image}/layers/${layer}/difference.${kind}`,
  /** @type {(image: ImageId, layer: number, target: string) => string} */
  relevance: (image, layer, target) =>
    `api/images/${image}/layers/${layer}/relevance/${encodeURIComponent(target)}.json`,
  /** @type {(image: ImageId, layer: number) => string} */
  histograms: (image, layer) => `api/images/${image}/layers/${layer}/histograms.json`,
  /** @type {(image: ImageId, layer: number, kind: string) => string} */
  attention: (image, layer, kind) => `api/images/${image}/layers/${layer}/attention.${kind}`,
  /**
   * @param {ImageId} image
   * @param {string} method
   * @param {string | number} target
   * @param {number | null} layer
   * @param {string} kind
   */
  heatmap: (image, method, target, layer, kind) =>
    `api/images/${image}/heatmaps/${method}/${encodeURIComponent(target)}${kind}`
      + (layer === null ? "" : `?layer=${layer}`),
  /** @type {(image: ImageId, method: string, target: string | number, kind: string) => string} */
  scores: (image, method, target, kind) =>
    `api/images/${image}/scores/${method}/${encodeURIComponent(target)}${kind}`,
  /** @type {(layer: number, kind: string) => string} */
  kernel: (layer, kind) => `api/layers/${layer}/kernel.${kind}`,
  /** @type {(layer: number) => string} */
  dataset: (layer) => `api/layers/${layer}/dataset.json`,
  /** @type {(layer: number, channel: number, kind: string) => string} */
  maximized: (layer, channel, kind) =>
    `api/layers/${layer}/channels/${channel}/maximized${kind}?steps=${STEPS}`,
};

/**
 * Return the path of a resource of the second model.
 * @param {string} path Path of the resource of the first model.
 */
export const getOtherPath = (path) => path.replace("api/", "api/other/");

/** A task of which only the latest run counts: a new run aborts the one before. */
export class LatestTask {
  /** @param {(error: RequestError) => void} onError */
  constructor(onError) {
    this.onError = onError;
    /** @type {string | number | null} */
    this.key = null;
    /** @type {AbortController | null} */
    this.controller = null;
    this.hasFailed = false;
    document.addEventListener("retry", () => {
      if (this.hasFailed) this.stop();
    });
  }

  /**
   * Run `action` unless it is running, or has run, for this key.
   * @param {string | number} key
   * @param {(signal: AbortSignal) => Promise<void>} action
   */
  async run(key, action) {
    if (key === this.key) return;
    this.stop();
    const controller = new AbortController();
    this.key = key;
    this.controller = controller;
    this.hasFailed = false;
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
    this.key = null;
    this.controller = null;
  }
}

/**
 * Report an error to the page if the server does not answer.
 * @param {RequestError} error
 */
export function reportLostConnection(error) {
  if (error.status === 0) {
    document.dispatchEvent(new CustomEvent("connection-lost", { detail: error.message }));
  }
}
