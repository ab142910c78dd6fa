/** The images: those of the folder, and those dropped, pasted, uploaded or taken by the webcam. */

import * as data from "./data.js";
import {
  announce, button, byId, counted, div, make, number, percent, sizeText, soft, span, toast,
} from "./dom.js";
import { get, go, writeAddress } from "./state.js";
import { takePicture } from "./webcam.js";

export const NO_IMAGES = "There are no images yet: add one, drop one here, or paste one.";
const PAGE = 100;
const FORMATS = "image/png,image/jpeg,image/webp,image/gif,image/bmp";

export class Images {
  constructor(model) {
    this.model = model;
    this.names = new Map();
    this.items = new Map();
    this.total = Infinity;
    this.listed = 0; // of the server's list; uploads here come on top
    this.classes = new data.Task((error) => this.failClasses(error));
    this.portrait = new data.Task((error) => data.lost(error));
    this.listing = null;
    this.build();
  }

  build() {
    this.current = make("img", { class: "current", alt: "", hidden: true });
    this.name = make("h2", {});
    this.top = make("ol", { class: "top-classes", "aria-label": "Top classes" });
    this.list = make("div", {
      class: "thumbnails", role: "group", "aria-label": "Images to choose from",
      onkeydown: (event) => this.key(event),
    });
    this.more = div("more");
    this.count = soft();
    byId("images").append(div("chosen", this.current, div(null, this.name, this.top)),
      this.buildUpload(), this.count, div("scroller", this.list, this.more));
    const near = { rootMargin: "200px" };
    this.seen = new IntersectionObserver((entries) => this.loadSeen(entries), near);
    this.end = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        this.listMore().catch((error) => data.lost(error));
      }
    }, near);
    this.end.observe(this.more);
  }

  /** What adds images; only where the server takes them. */
  buildUpload() {
    const tools = div("tools upload");
    if (!this.model.uploads) return tools;
    const file = make("input", {
      type: "file", accept: FORMATS, multiple: true, class: "unseen", tabindex: -1,
      "aria-label": "Image files",
      onchange: async () => {
        await this.take([...file.files]);
        file.value = "";
      },
    });
    const title = "Choose files; dropping and pasting works, too";
    tools.append(button("Add images", { onclick: () => file.click(), title }), file);
    if (navigator.mediaDevices?.getUserMedia) {
      const onclick = () => this.fromWebcam();
      tools.append(button("Webcam", { "aria-haspopup": "dialog", onclick }));
    }
    const { bytes, pixels } = this.model.uploads;
    const limits = `${sizeText(bytes)} and ${counted(pixels, "pixel")}`;
    tools.append(soft(`PNG, JPEG, WebP, GIF or BMP of at most ${limits}`));
    this.listenForDrops();
    window.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length) this.take(files);
    });
    return tools;
  }

  listenForDrops() {
    let inside = 0;
    const over = (on) => document.body.classList.toggle("dropping", on);
    const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    window.addEventListener("dragenter", (event) => {
      if (files(event)) over((inside += 1) > 0);
    });
    window.addEventListener("dragleave", (event) => {
      if (files(event)) over((inside -= 1) > 0);
    });
    window.addEventListener("dragover", (event) => {
      if (files(event)) event.preventDefault();
    });
    window.addEventListener("drop", (event) => {
      over(Boolean((inside = 0)));
      if (!files(event)) return;
      event.preventDefault();
      this.take([...event.dataTransfer.files]);
    });
  }

  async fromWebcam() {
    const blob = await takePicture();
    if (blob) await this.take([new File([blob], "webcam.jpg", { type: blob.type })]);
  }

  /** Send files to the server, and look at the last that it took. */
  async take(files) {
    for (const file of files) {
      const { bytes } = this.model.uploads;
      if (file.size > bytes) {
        const limit = `the limit is ${bytes.toLocaleString("en")} (${sizeText(bytes)})`;
        toast(`${file.name} has ${counted(file.size, "byte")}; ${limit}.`, "error");
        continue;
      }
      document.body.classList.add("sending");
      try {
        const added = await data.upload(file, file.name || "pasted.png");
        const { id, name } = added;
        if (!this.items.has(id)) {
          this.add(added, true);
          this.total += 1;
        }
        this.showCount();
        announce(`${name} was added`);
        go({ image: id });
      } catch (error) {
        toast(error.status === 0 ? error.message : `${file.name}: ${error.message}`, "error");
      } finally {
        document.body.classList.remove("sending");
      }
    }
  }

  /** Remove an uploaded image, and look at another one if it was looked at. */
  async remove(id) {
    const name = this.nameOf(id);
    const other = this.another(id);
    const { image, compare } = get();
    const next = { image: image === id ? other : image, compare: compare === id ? null : compare };
    if (next.image === next.compare) next.compare = null;
    go(next, { step: false }); // what is asked for the image is broken off
    writeAddress();
    try {
      await data.remove(id);
    } catch (error) {
      if (error.status !== 404) { // 404: it is gone already
        toast(`${name}: ${error.message}`, "error");
        return;
      }
    }
    this.items.get(id)?.element.remove();
    this.items.delete(id);
    this.total -= 1;
    this.listed = Math.min(this.listed, this.total);
    this.showCount();
    announce(`${name} was removed`);
  }

  /** List the next page of images. */
  listMore() {
    if (this.listed >= this.total) return Promise.resolve();
    this.listing ??= this.list100().finally(() => { this.listing = null; });
    return this.listing;
  }

  /** List pages until an image is among them. */
  async listTo(id) {
    while (!this.items.has(id) && this.listed < this.total) await this.listMore();
    this.show(get());
  }

  async list100() {
    const path = this.model.live ? data.paths.images(this.listed, PAGE) : "api/images.json";
    const { total, images } = await (await data.request(path)).json();
    this.total = images.length ? total : this.listed;
    this.listed += images.length;
    for (const image of images) if (!this.items.has(image.id)) this.add(image);
    this.showCount();
    // The end may still be in sight: look again.
    this.end.unobserve(this.more);
    this.end.observe(this.more);
  }

  showCount() {
    this.mark(get());
    const total = Math.max(Number.isFinite(this.total) ? this.total : 0, this.items.size);
    this.count.textContent = total ? counted(total, "image") : "No images yet";
  }

  add({ id, name, uploaded }, first = false) {
    this.names.set(id, name);
    const image = make("img", { alt: "", width: 64, height: 64 });
    const pick = button("", {
      class: "pick", title: name, "aria-label": name, onclick: () => go({ image: id }),
    }, image);
    const beside = button("", {
      class: "beside", title: `Compare with ${name}`, "aria-label": `Compare with ${name}`,
      "aria-pressed": "false", onclick: () => this.compare(id),
    });
    const remove = uploaded ? button("×", {
      class: "remove", title: `Remove ${name}`, "aria-label": `Remove ${name}`,
      onclick: () => this.remove(id),
    }) : null;
    const element = make("div", { class: "thumb", "data-image": id }, pick, beside, remove);
    this.items.set(id, { element, image, pick, beside });
    if (first) this.list.prepend(element);
    else this.list.append(element);
    this.seen.observe(element);
  }

  /** Show an image beside the chosen one, or no longer. */
  compare(id) {
    const compare = get().compare === id ? null : id;
    go({ compare, tab: "layer", channel: null, pane: "view" });
  }

  loadSeen(entries) {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      this.seen.unobserve(target);
      const id = target.dataset.image;
      showPicture(this.items.get(id).image, data.paths.thumbnail(id));
    }
  }

  nameOf(id) {
    return this.names.get(id) ?? "image";
  }

  get first() {
    return this.items.keys().next().value ?? null;
  }

  /** The image after this one, to compare with. */
  another(id) {
    const all = [...this.items.keys()];
    return all.length > 1 ? all[(all.indexOf(id) + 1) % all.length] : null;
  }

  show(state) {
    this.mark(state);
    if (!state.image) {
      this.portrait.stop();
      this.classes.stop();
      this.current.hidden = true;
      this.name.replaceChildren();
      this.top.replaceChildren();
      return;
    }
    this.name.textContent = this.names.get(state.image) ?? "";
    this.portrait.run(state.image, async (signal) => {
      this.current.src = await data.picture(data.paths.picture(state.image), signal);
      this.current.alt = `The image as the model sees it: ${this.nameOf(state.image)}`;
      this.current.hidden = false;
    });
    if (!this.model.classes) return;
    this.classes.run(state.image, async (signal) => {
      this.top.classList.add("stale");
      this.showClasses(await data.json(data.paths.classes(state.image), signal));
    });
  }

  mark(state) {
    for (const [id, { pick, beside }] of this.items) {
      pick.ariaCurrent = id === state.image ? "true" : null;
      beside.ariaPressed = String(id === state.compare);
    }
  }

  showClasses({ kind, top }) {
    const probable = kind === "probability";
    const most = probable ? 1 : Math.max(...top.map(({ value }) => Math.abs(value ?? 0)), 1e-9);
    this.top.classList.remove("stale");
    this.top.replaceChildren(...top.map(({ index, name, value }) => {
      const bar = make("i", {});
      bar.style.width = `${(100 * Math.max(value ?? 0, 0)) / most}%`;
      const text = name ?? `class ${index}`;
      return make("li", { title: `${text} (class ${index})` }, span("label", text),
        span("value", probable ? percent(value) : number(value)), span("bar", bar));
    }));
    announce(`${this.nameOf(get().image)}: ${top[0]?.name ?? `class ${top[0]?.index}`}`);
  }

  failClasses(error) {
    this.top.replaceChildren(make("li", { class: "error" }, error.message));
    data.lost(error);
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const all = [...this.list.children];
    const next = all[all.indexOf(event.target.closest(".thumb")) + step];
    next?.querySelector(".pick").focus();
    event.preventDefault();
  }
}

/** Fill an <img>; one that cannot be had stays empty. */
export function showPicture(element, path, signal) {
  data.picture(path, signal).then((address) => { element.src = address; }, () => {});
}
