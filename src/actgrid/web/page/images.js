/** The image list: images of the server and images that the user adds, with their top classes. */

import { ClassList, formatClass } from "./classes.js";
import * as data from "./data.js";
import {
  announce, ARROW_DIRECTIONS, button, byId, div, formatBytes, formatCount, make, mutedLine,
  showToast,
} from "./dom.js";
import { getState, updateState, writeHash } from "./state.js";
import { captureImage } from "./webcam.js";

/** @import { Model } from "./model.js" */
/** @import { State } from "./state.js" */

/**
 * @typedef {object} Item Elements of an image in the list.
 * @property {HTMLElement} element
 * @property {HTMLImageElement} image
 * @property {HTMLButtonElement} pick
 * @property {HTMLButtonElement} compareButton
 */

export const NO_IMAGES = "There are no images yet. Add, drop or paste an image.";
const PAGE_SIZE = 100;

export class Images {
  /** @param {Model} model */
  constructor(model) {
    this.model = model;
    /** @type {Map<string, string>} */
    this.names = new Map();
    /** @type {Map<string, Item>} */
    this.items = new Map();
    this.total = Infinity;
    this.listed = 0; // number of images of the server's list that are loaded
    this.classesTask = new data.LatestTask((error) => this.showClassesError(error));
    this.pictureTask = new data.LatestTask((error) => data.reportLostConnection(error));
    /** @type {Promise<void> | null} */
    this.listing = null;
    this.currentImage = make("img", { class: "current", alt: "", hidden: true });
    this.name = make("h2", {});
    this.topClasses = new ClassList("Top classes");
    this.list = make("div", {
      class: "thumbnails", role: "group", "aria-label": "List of images",
      onkeydown: (/** @type {KeyboardEvent & {target: Element}} */ event) => this.handleKey(event),
    });
    this.listEnd = div("more");
    this.count = mutedLine();
    const description = div(null, this.name, this.topClasses.element);
    byId("images").append(div("current-image", this.currentImage, description),
      this.buildUpload(), this.count, div("scroller", this.list, this.listEnd));
    const options = { rootMargin: "200px" };
    this.thumbnailObserver = new IntersectionObserver(
      (entries) => this.loadVisible(entries), options,
    );
    this.endObserver = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        this.listMore().catch((error) => data.reportLostConnection(error));
      }
    }, options);
    this.endObserver.observe(this.listEnd);
  }

  /** Create the controls that add images, if the server accepts uploads. */
  buildUpload() {
    const tools = div("tools upload");
    if (!this.model.uploads) return tools;
    const { bytes, pixels, suffixes } = this.model.uploads;
    const isImage = this.model.input_kind === "image";
    const noun = isImage ? "image" : "sample";
    const file = make("input", {
      type: "file", accept: suffixes.join(","), multiple: true, class: "visually-hidden", tabindex: -1,
      "aria-label": isImage ? "Image files" : "Sample files",
      onchange: async () => {
        await this.uploadFiles([...(file.files ?? [])]);
        file.value = "";
      },
    });
    const title = `Select ${noun} files; you can also drop or paste ${noun}s`;
    tools.append(button(`Add ${noun}s`, { onclick: () => file.click(), title }), file);
    if (isImage && navigator.mediaDevices) { // undefined on pages without encryption
      const onclick = () => this.addFromWebcam();
      tools.append(button("Webcam", { "aria-haspopup": "dialog", onclick }));
    }
    const limits = isImage
      ? `PNG, JPEG, WebP, GIF or BMP of at most ${formatBytes(bytes)} and `
        + formatCount(pixels, "pixel")
      : `${suffixes.join(", ")} of at most ${formatBytes(bytes)}`;
    tools.append(mutedLine(limits));
    this.listenForDrops();
    window.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length) this.uploadFiles(files);
    });
    return tools;
  }

  listenForDrops() {
    // Child elements cause "dragenter" and "dragleave" events, too: their difference counts.
    let depth = 0;
    /** @param {boolean} isOn */
    const highlight = (isOn) => document.body.classList.toggle("dropping", isOn);
    /** @param {DragEvent} event */
    const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    window.addEventListener("dragenter", (event) => {
      if (hasFiles(event)) highlight((depth += 1) > 0);
    });
    window.addEventListener("dragleave", (event) => {
      if (hasFiles(event)) highlight((depth -= 1) > 0);
    });
    window.addEventListener("dragover", (event) => {
      if (hasFiles(event)) event.preventDefault();
    });
    window.addEventListener("drop", (event) => {
      highlight(Boolean((depth = 0)));
      if (!hasFiles(event)) return;
      event.preventDefault();
      this.uploadFiles([...(event.dataTransfer?.files ?? [])]);
    });
  }

  async addFromWebcam() {
    const blob = await captureImage();
    if (blob) await this.uploadFiles([new File([blob], "webcam.jpg", { type: blob.type })]);
  }

  /**
   * Upload files to the server, and select the last accepted image.
   * @param {File[]} files
   */
  async uploadFiles(files) {
    const bytes = this.model.uploads?.bytes ?? 0;
    for (const file of files) {
      if (file.size > bytes) {
        const limit = `the limit is ${bytes.toLocaleString("en")} (${formatBytes(bytes)})`;
        showToast(`${file.name} has ${formatCount(file.size, "byte")}; ${limit}.`, "error");
        continue;
      }
      document.body.classList.add("sending");
      try {
        const image = await data.uploadImage(file, file.name || "pasted.png");
        const { id, name } = image;
        if (!this.items.has(id)) {
          this.addItem(image, true);
          this.total += 1;
        }
        this.showCount();
        announce(`${name} added`);
        updateState({ image: id });
      } catch (error) {
        showToast(error.status === 0 ? error.message : `${file.name}: ${error.message}`, "error");
      } finally {
        document.body.classList.remove("sending");
      }
    }
  }

  /**
   * Remove an uploaded image, and select another image if this one was selected.
   * @param {string} id
   */
  async remove(id) {
    const name = this.getName(id);
    const other = this.getNextId(id);
    const { image, compare } = getState();
    const changes = {
      image: image === id ? other : image,
      compare: compare === id ? null : compare,
    };
    if (changes.image === changes.compare) changes.compare = null;
    updateState(changes, { newEntry: false }); // this aborts the requests for the image
    writeHash();
    try {
      await data.deleteImage(id);
    } catch (error) {
      if (error.status !== 404) { // 404: the image does not exist any more
        showToast(`${name}: ${error.message}`, "error");
        return;
      }
    }
    this.items.get(id)?.element.remove();
    this.items.delete(id);
    this.total -= 1;
    this.listed = Math.min(this.listed, this.total);
    this.showCount();
    announce(`${name} removed`);
  }

  /** Load the next page of the list. */
  listMore() {
    if (this.listed >= this.total) return Promise.resolve();
    this.listing ??= this.listPage().finally(() => { this.listing = null; });
    return this.listing;
  }

  /**
   * Load pages of the list until they contain an image.
   * @param {string} id
   */
  async listTo(id) {
    while (!this.items.has(id) && this.listed < this.total) await this.listMore();
    this.show(getState());
  }

  async listPage() {
    const path = this.model.is_live ? data.paths.images(this.listed, PAGE_SIZE) : "api/images.json";
    /** @type {Api.Images} */
    const { total, images } = await (await data.request(path)).json();
    this.total = images.length ? total : this.listed;
    this.listed += images.length;
    for (const image of images) if (!this.items.has(image.id)) this.addItem(image);
    this.showCount();
    // The observer reports only changes, and the end of the list may still be visible.
    this.endObserver.unobserve(this.listEnd);
    this.endObserver.observe(this.listEnd);
  }

  showCount() {
    this.markSelection(getState());
    const total = Math.max(Number.isFinite(this.total) ? this.total : 0, this.items.size);
    const noun = this.model.input_kind === "image" ? "image" : "sample";
    this.count.textContent = total ? formatCount(total, noun) : `No ${noun}s yet`;
  }

  /** @param {Api.Image} image */
  addItem({ id, name, uploaded }, isFirst = false) {
    this.names.set(id, name);
    const image = make("img", { alt: "", width: 64, height: 64 });
    const pick = button("", {
      class: "pick", title: name, "aria-label": name, onclick: () => updateState({ image: id }),
    }, image);
    const compareButton = button("", {
      class: "compare", title: `Compare with ${name}`, "aria-label": `Compare with ${name}`,
      "aria-pressed": "false", onclick: () => this.toggleCompare(id),
    });
    const remove = uploaded ? button("×", {
      class: "remove", title: `Remove ${name}`, "aria-label": `Remove ${name}`,
      onclick: () => this.remove(id),
    }) : null;
    const element = make("div", { class: "thumb", "data-image": id }, pick, compareButton, remove);
    this.items.set(id, { element, image, pick, compareButton });
    if (isFirst) this.list.prepend(element);
    else this.list.append(element);
    this.thumbnailObserver.observe(element);
  }

  /**
   * Start or stop comparing an image with the selected image.
   * @param {string} id
   */
  toggleCompare(id) {
    const compare = getState().compare === id ? null : id;
    updateState({ compare, tab: "layer", channel: null, pane: "view" });
  }

  /**
   * Load the thumbnails that have become visible.
   * @param {IntersectionObserverEntry[]} entries
   */
  loadVisible(entries) {
    const visible = new Set(entries.filter((entry) => entry.isIntersecting)
      .map(({ target }) => target));
    for (const [id, { element, image }] of this.items) {
      if (!visible.has(element)) continue;
      this.thumbnailObserver.unobserve(element);
      loadThumbnail(image, data.paths.thumbnail(id));
    }
  }

  /** @param {string | null} id */
  getName(id) {
    return (id !== null && this.names.get(id)) || "image";
  }

  get firstId() {
    return this.items.keys().next().value ?? null;
  }

  /**
   * Return the id of the image after this one; null if there is no other image.
   * @param {string | null} id
   */
  getNextId(id) {
    const ids = [...this.items.keys()];
    const next = ids.findIndex((other) => other === id) + 1;
    return ids.length > 1 ? ids[next % ids.length] : null;
  }

  /** @param {State} state */
  show(state) {
    this.markSelection(state);
    if (!state.image) {
      this.pictureTask.stop();
      this.classesTask.stop();
      this.currentImage.hidden = true;
      this.name.replaceChildren();
      this.topClasses.clear();
      return;
    }
    this.name.textContent = this.names.get(state.image) ?? "";
    this.pictureTask.run(state.image, async (signal) => {
      this.currentImage.src = await data.loadImageUrl(data.paths.picture(state.image), signal);
      this.currentImage.alt = `Model input: ${this.getName(state.image)}`;
      this.currentImage.hidden = false;
    });
    if (!this.model.classes) return;
    const path = state.off === null ? data.paths.classes(state.image)
      : data.paths.ablation(state.image, state.off);
    this.classesTask.run(path, async (signal) => {
      this.topClasses.markStale();
      this.showClasses(await data.loadJson(path, signal));
    });
  }

  /** @param {State} state */
  markSelection(state) {
    for (const [id, { pick, compareButton }] of this.items) {
      pick.ariaCurrent = id === state.image ? "true" : null;
      compareButton.ariaPressed = String(id === state.compare);
    }
  }

  /** @param {Api.Classes | Api.Ablation} classes */
  showClasses(classes) {
    this.topClasses.show(classes);
    announce(`${this.getName(getState().image)}: ${formatClass(classes.top[0])}`);
  }

  /** @param {data.RequestError} error */
  showClassesError(error) {
    this.topClasses.showError(error.message);
    data.reportLostConnection(error);
  }

  /** @param {KeyboardEvent & {target: Element}} event */
  handleKey(event) {
    const step = ARROW_DIRECTIONS[event.key]?.[0];
    if (!step) return;
    const picks = [...this.list.querySelectorAll(".pick")];
    const item = event.target.closest(".thumb");
    const next = picks[picks.findIndex((pick) => item?.contains(pick)) + step];
    if (next instanceof HTMLElement) next.focus();
    event.preventDefault();
  }
}

/**
 * Load a thumbnail into an <img>, which stays empty if the request fails.
 * @param {HTMLImageElement} element
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
export function loadThumbnail(element, path, signal) {
  data.loadImageUrl(path, signal).then((address) => { element.src = address; }, () => {});
}
