/** Saving of views as PNG files. */

import { createCanvas, getContext, showToast } from "./dom.js";

/** @import { BoxCard, Card, Graph } from "./graph.js" */

const MAX_SIDE = 16000; // pixels on a side of the canvas
const MAX_PIXELS = 1 << 26;

/**
 * Encode a canvas as an image file; return null if it is too large. `toBlob` is not used because it
 * waits until the browser is idle, in Chromium up to seven seconds.
 * @param {HTMLCanvasElement} canvas
 * @param {string} type
 * @param {number} [quality]
 */
export function encodeCanvas(canvas, type, quality) {
  const [kind, base64] = canvas.toDataURL(type, quality).split(",");
  if (!kind.includes(type)) return null;
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type });
}

/**
 * Download a canvas as a PNG file.
 * @param {HTMLCanvasElement} canvas
 * @param {string} name
 */
export function saveCanvas(canvas, name) {
  const file = encodeCanvas(canvas, "image/png");
  if (!file) {
    const size = `${canvas.width} × ${canvas.height}`;
    showToast(`A picture of ${size} pixels is too large for this browser.`, "error");
    return;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/**
 * Create a canvas filled with a colour; return the canvas and its context.
 * @param {number} width
 * @param {number} height
 * @param {string} colour
 */
export function createFilledCanvas(width, height, colour) {
  const canvas = createCanvas(width, height);
  const context = getContext(canvas);
  context.fillStyle = colour;
  context.fillRect(0, 0, width, height);
  return { canvas, context };
}

/**
 * Return the CSS colour of a pixel of a lookup table.
 * @param {number} pixel
 */
const formatCssColour = (pixel) =>
  `rgb(${pixel & 255} ${(pixel >> 8) & 255} ${(pixel >> 16) & 255})`;

/**
 * Draw pictures side by side on a background in the colour of a pixel.
 * @param {HTMLCanvasElement[]} pictures
 * @param {number} pixel
 */
export function joinPictures(pictures, pixel, gap = 8) {
  const width = pictures.reduce((sum, picture) => sum + picture.width, gap * (pictures.length - 1));
  const height = Math.max(...pictures.map((picture) => picture.height));
  const { canvas, context } = createFilledCanvas(width, height, formatCssColour(pixel));
  let left = 0;
  for (const picture of pictures) {
    context.drawImage(picture, left, 0);
    left += picture.width + gap;
  }
  return canvas;
}

/**
 * Draw text, shortened with an ellipsis to fit into a width.
 * @param {CanvasRenderingContext2D} context
 * @param {string} text
 * @param {number} x
 * @param {number} y
 * @param {number} maxWidth
 */
export function drawText(context, text, x, y, maxWidth) {
  let shortened = text;
  while (shortened.length > 1 && context.measureText(shortened).width > maxWidth) {
    shortened = `${shortened.slice(0, -2)}…`;
  }
  context.fillText(shortened, x, y);
}

/**
 * Draw all cards and edges of the network, in the current layout and colours of the page.
 * @param {Graph} graph
 */
export function drawNetwork(graph) {
  const margin = 24;
  const { layout, cards } = graph;
  const [width, height] = [layout.width + 2 * margin, layout.height + 2 * margin];
  const maxScale = Math.sqrt(MAX_PIXELS / (width * height));
  const scale = Math.min(2, MAX_SIDE / width, MAX_SIDE / height, maxScale);
  /** @type {(element: Element, name: string) => string} */
  const getStyle = (element, name) => getComputedStyle(element).getPropertyValue(name);
  const background = getStyle(document.body, "background-color");
  const [pixelWidth, pixelHeight] = [Math.ceil(width * scale), Math.ceil(height * scale)];
  const { canvas, context } = createFilledCanvas(pixelWidth, pixelHeight, background);
  context.setTransform(scale, 0, 0, scale, margin * scale, margin * scale);
  const family = getStyle(document.body, "font-family");
  /** @type {(card: Card | BoxCard, radius: number) => void} */
  const drawPanel = (card, radius) => {
    context.fillStyle = getStyle(card.element, "background-color");
    context.strokeStyle = getStyle(card.element, "border-top-color");
    context.lineWidth = parseFloat(getStyle(card.element, "border-top-width")) || 1;
    context.beginPath();
    context.roundRect(card.x, card.y, card.width, card.height, radius);
    context.fill();
    context.stroke();
  };
  /** @type {(element: Element, size: number, x: number, y: number, maxWidth: number) => void} */
  const drawElementText = (element, size, x, y, maxWidth) => {
    context.font = `${getStyle(element, "font-weight")} ${size}px ${family}`;
    context.fillStyle = getStyle(element, "color");
    drawText(context, element.textContent ?? "", x, y, maxWidth);
  };
  const all = [...cards.values()];
  const boxes = all.filter((card) => card.kind === "box");
  for (const box of boxes.sort((a, b) => b.width * b.height - a.width * a.height)) {
    drawPanel(box, 10);
    drawElementText(box.title, 12, box.x + 34, box.y + 20, box.width - 44);
  }
  context.strokeStyle = getStyle(graph.lines, "color");
  context.lineWidth = 1.5;
  for (const { path } of layout.edges) context.stroke(new Path2D(path));
  for (const card of all.filter((item) => item.kind === "card")) {
    drawPanel(card, 8);
    context.drawImage(card.thumbnail, card.x + 6, card.y + 6, 46, 46);
    const maxWidth = card.width - 68;
    [...card.element.querySelectorAll(".words > *")].forEach((line, row) => {
      const deadWidth = row === 1 && card.dead.textContent ? 52 : 0;
      const [size, y] = [row ? 11 : 12.5, card.y + 18 + 16 * row];
      const element = deadWidth ? card.type : line;
      drawElementText(element, size, card.x + 60, y, maxWidth - deadWidth);
    });
    if (card.dead.textContent) {
      drawElementText(card.dead, 11, card.x + card.width - 54, card.y + 34, 50);
    }
  }
  return canvas;
}
