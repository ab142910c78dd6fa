/** Pictures of what is seen, as PNG files. */

import { blank, toast } from "./dom.js";

const LONGEST = 16000; // pixels a canvas may have on a side
const LARGEST = 1 << 26;

/**
 * A canvas as an image file; null if it is too large. At once: `toBlob` waits for the browser to be
 * idle, in Chromium up to seven seconds.
 */
export function fileOf(canvas, type, quality) {
  const [kind, base64] = canvas.toDataURL(type, quality).split(",");
  if (!kind.includes(type)) return null;
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type });
}

/** Let a canvas be saved as a file. */
export function saveCanvas(canvas, name) {
  const file = fileOf(canvas, "image/png");
  if (!file) {
    const size = `${canvas.width} × ${canvas.height}`;
    toast(`A picture of ${size} is too large for this browser.`, "error");
    return;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/** A canvas with its context, filled with a colour. */
export function sheet(width, height, colour) {
  const canvas = blank(width, height);
  const context = canvas.getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, width, height);
  return { canvas, context };
}

/** Colour of a pixel of a lookup table, as CSS writes it. */
const css = (pixel) => `rgb(${pixel & 255} ${(pixel >> 8) & 255} ${(pixel >> 16) & 255})`;

/** Put pictures beside each other, on the colour of a pixel. */
export function sideBySide(pictures, pixel, gap = 8) {
  const width = pictures.reduce((sum, picture) => sum + picture.width, gap * (pictures.length - 1));
  const height = Math.max(...pictures.map((picture) => picture.height));
  const { canvas, context } = sheet(width, height, css(pixel));
  let left = 0;
  for (const picture of pictures) {
    context.drawImage(picture, left, 0);
    left += picture.width + gap;
  }
  return canvas;
}

/** Draw text that fits into a width, with dots where it is cut. */
export function drawText(context, text, x, y, room) {
  let shown = text;
  while (shown.length > 1 && context.measureText(shown).width > room) {
    shown = `${shown.slice(0, -2)}…`;
  }
  context.fillText(shown, x, y);
}

/** Draw the whole network as its cards stand, in the colours of the page. */
export function graphPicture(graph) {
  const margin = 24;
  const { layout, cards } = graph;
  const [wide, high] = [layout.width + 2 * margin, layout.height + 2 * margin];
  const scale = Math.min(2, LONGEST / wide, LONGEST / high, Math.sqrt(LARGEST / (wide * high)));
  const style = (element, name) => getComputedStyle(element)[name];
  const page = style(document.body, "backgroundColor");
  const { canvas, context } = sheet(Math.ceil(wide * scale), Math.ceil(high * scale), page);
  context.setTransform(scale, 0, 0, scale, margin * scale, margin * scale);
  const family = style(document.body, "fontFamily");
  const panel = (card, radius) => {
    context.fillStyle = style(card.element, "backgroundColor");
    context.strokeStyle = style(card.element, "borderTopColor");
    context.lineWidth = parseFloat(style(card.element, "borderTopWidth")) || 1;
    context.beginPath();
    context.roundRect(card.x, card.y, card.width, card.height, radius);
    context.fill();
    context.stroke();
  };
  const write = (element, size, x, y, room) => {
    context.font = `${style(element, "fontWeight")} ${size}px ${family}`;
    context.fillStyle = style(element, "color");
    drawText(context, element.textContent, x, y, room);
  };
  const all = [...cards.values()];
  const boxes = all.filter(({ kind }) => kind === "box");
  for (const box of boxes.sort((a, b) => b.width * b.height - a.width * a.height)) {
    panel(box, 10);
    write(box.element.querySelector("b"), 12, box.x + 34, box.y + 20, box.width - 44);
  }
  context.strokeStyle = style(graph.lines, "color");
  context.lineWidth = 1.5;
  for (const { path } of layout.edges) context.stroke(new Path2D(path));
  for (const card of all.filter(({ kind }) => kind === "card")) {
    panel(card, 8);
    context.drawImage(card.thumbnail, card.x + 6, card.y + 6, 46, 46);
    const room = card.width - 68;
    [...card.element.querySelectorAll(".words > *")].forEach((line, row) => {
      const taken = row === 1 && card.dead.textContent ? 52 : 0;
      const [size, y] = [row ? 11 : 12.5, card.y + 18 + 16 * row];
      write(taken ? line.firstChild : line, size, card.x + 60, y, room - taken);
    });
    if (card.dead.textContent) write(card.dead, 11, card.x + card.width - 54, card.y + 34, 50);
  }
  return canvas;
}
