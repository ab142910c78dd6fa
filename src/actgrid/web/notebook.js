/**
 * The widget of a notebook: shows the page in a frame, and sends its requests to the kernel as
 * messages of the notebook.
 *
 * @typedef {{status: number, headers: Record<string, string>, body: Uint8Array<ArrayBuffer>}} Answer
 */

// The semicolon distinguishes statements from comments, whose imports may be circular.
const NAME = /(from|import) "\.\/([\w-]+\.js)";/g;
const PATIENCE = 5000; // milliseconds after which a kernel that does not answer is reported
const SILENT = "The kernel does not answer: it is busy, or it is not running. "
  + "If it is not running, run this cell again.";
const CLOSED = "This viewer has ended. To explore the layers, run this cell again.";

/** Messages between a page and the kernel. */
class Channel {
  /** @param {any} model */
  constructor(model) {
    this.model = model;
    this.prefix = Math.random().toString(36).slice(2);
    this.count = 0;
    /** @type {Map<string, (answer: Answer) => void>} */
    this.waiting = new Map();
  }

  /**
   * @param {{kind: string, id: string, status: number, headers: Record<string, string>}} content
   * @param {DataView<ArrayBuffer>[]} buffers
   */
  receive({ id, status, headers }, buffers) {
    const [view] = buffers;
    const body = view
      ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : new Uint8Array();
    this.waiting.get(id)?.({ status, headers, body });
    this.waiting.delete(id);
  }

  /**
   * Send a request, and wait for its answer.
   * @param {string} path
   * @param {{method?: string, headers?: Record<string, string>, body?: ArrayBuffer | null,
   *   signal?: AbortSignal | null}} [options]
   * @returns {Promise<Answer>}
   */
  request(path, { method = "GET", headers = {}, body = null, signal = null } = {}) {
    const id = `${this.prefix}-${this.count += 1}`;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, resolve);
      signal?.addEventListener("abort", () => {
        if (!this.waiting.delete(id)) return;
        this.model.send({ kind: "cancel", id });
        reject(signal.reason);
      });
      const content = { kind: "request", id, method, path, headers };
      this.model.send(content, undefined, body ? [body] : []);
    });
  }

  /** @param {string} path */
  async requestText(path) {
    const { status, body } = await this.request(path);
    if (status !== 200) throw new Error(`${path}: status ${status}`);
    return new TextDecoder().decode(body);
  }
}

/**
 * Return a function that replaces `fetch` in the page.
 * @param {Channel} channel
 * @param {Window & typeof globalThis} page
 */
function makeFetch(channel, page) {
  /** @type {(path: RequestInfo | URL, options?: RequestInit) => Promise<Response>} */
  return async (path, options = {}) => {
    const { method, signal } = options;
    if (signal?.aborted) throw signal.reason;
    const blob = options.body instanceof page.Blob || options.body instanceof Blob;
    const body = blob ? await /** @type {Blob} */ (options.body).arrayBuffer() : null;
    const headers = Object.fromEntries(new Headers(options.headers));
    const answer = await channel.request(`/${path}`, { method, headers, body, signal });
    const isEmpty = method === "HEAD" || answer.status === 204;
    return new page.Response(isEmpty ? null : answer.body, {
      status: answer.status, headers: answer.headers,
    });
  };
}

/**
 * Return the address of a module, whose imports are replaced by addresses: relative imports do not
 * work in a document without an address of its own.
 * @param {Channel} channel
 * @param {string} name
 * @param {Map<string, Promise<string>>} addresses
 * @returns {Promise<string>}
 */
function loadModule(channel, name, addresses) {
  const load = async () => {
    const code = await channel.requestText(`/${name}`);
    const names = [...code.matchAll(NAME)].map((match) => match[2]);
    const urls = await Promise.all(names.map((other) => loadModule(channel, other, addresses)));
    const imports = new Map(names.map((other, index) => [other, urls[index]]));
    const linked = code.replace(NAME, (_, word, other) => `${word} "${imports.get(other)}";`);
    return URL.createObjectURL(new Blob([linked], { type: "text/javascript" }));
  };
  const address = addresses.get(name) ?? load();
  addresses.set(name, address);
  return address;
}

/**
 * Load the page into a frame.
 * @param {Channel} channel
 * @param {HTMLIFrameElement} frame
 */
async function loadPage(channel, frame) {
  const text = await channel.requestText("/");
  const page = new DOMParser().parseFromString(text, "text/html");
  const entry = page.querySelector("script[src]");
  const address = await loadModule(channel, entry?.getAttribute("src") ?? "main.js", new Map());
  entry?.remove();
  // The policy of the page allows only files of a server.
  page.querySelector("meta[http-equiv='Content-Security-Policy' i]")?.remove();
  for (const link of page.querySelectorAll("link[rel=stylesheet]")) {
    const style = page.createElement("style");
    style.textContent = await channel.requestText(`/${link.getAttribute("href")}`);
    link.replaceWith(style);
  }
  frame.addEventListener("load", () => {
    const content = /** @type {Window & typeof globalThis} */ (frame.contentWindow);
    content.fetch = makeFetch(channel, content);
    const script = content.document.createElement("script");
    Object.assign(script, { type: "module", src: address });
    content.document.body.append(script);
  });
  frame.srcdoc = `<!doctype html>${page.documentElement.outerHTML}`;
}

/** @param {{model: any, el: HTMLElement}} widget */
function render({ model, el }) {
  const note = document.createElement("p");
  note.setAttribute("role", "status");
  const frame = document.createElement("iframe");
  frame.allow = "camera; clipboard-read";
  frame.title = "Viewer of actgrid";
  frame.style.cssText = `border: 0; width: 100%; height: ${model.get("height")}px`;
  frame.hidden = true;
  el.append(note, frame);

  let hasStarted = false;
  let isClosed = false;
  /** Show a text, or the page if there is none. */
  const show = (text = "") => {
    note.textContent = text;
    frame.hidden = !hasStarted;
    frame.inert = Boolean(text);
    frame.style.opacity = text ? "0.4" : "1";
    // The picture of the saved notebook is another output of the cell.
    const picture = document.getElementById(model.get("picture_id"));
    const output = picture?.closest(".jp-OutputArea-child") ?? picture;
    if (output instanceof HTMLElement) output.style.display = hasStarted ? "none" : "";
  };

  const channel = new Channel(model);
  let isChecking = false;
  /** Check that the kernel answers, and say so if it does not. */
  const check = async () => {
    if (isChecking || isClosed) return;
    isChecking = true;
    const timer = setTimeout(() => show(SILENT), PATIENCE);
    await channel.request("/", { method: "HEAD" });
    clearTimeout(timer);
    isChecking = false;
    hasStarted = true;
    if (!isClosed) show();
  };
  /** @type {(content: any, buffers: DataView<ArrayBuffer>[]) => void} */
  const receive = (content, buffers) => {
    if (content.kind !== "closed") {
      channel.receive(content, buffers);
      return;
    }
    isClosed = true;
    show(CLOSED);
  };
  model.on("msg:custom", receive);
  note.textContent = "Starting the viewer…";
  const silence = setTimeout(() => show(SILENT), PATIENCE);
  loadPage(channel, frame)
    .then(() => clearTimeout(silence))
    .then(check, (error) => show(error.message));
  const heartbeat = setInterval(() => { if (hasStarted) check(); }, PATIENCE);
  return () => {
    clearTimeout(silence);
    clearInterval(heartbeat);
    model.off("msg:custom", receive);
  };
}

export default { render };
