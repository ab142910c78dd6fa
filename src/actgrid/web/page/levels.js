/** Levels, colormaps and grids: the steps of actgrid.render that run in the browser. */

import { createCanvas, getContext } from "./dom.js";

const MAX_DECODED_PIXELS = 1 << 22; // pixels that are decoded at once
const MAX_PIXELS = 1 << 24; // canvas size that every browser supports
const MAX_SIDE = 32767; // canvas side that every browser supports
const MAX_UNFOLDED_STEPS = 512; // longer sequences are cut into strips

/** @typedef {{x: number, y: number}} Point */
/** @typedef {{x: number, y: number, width: number, height: number}} Rect */
/** @typedef {{width: number, height: number, data: Uint8Array}} Levels Levels in rows. */

/**
 * Decode a grayscale PNG to its exact bytes, part by part to save memory.
 * @param {Blob} blob
 * @returns {Promise<Levels>}
 */
export async function decodeLevels(blob) {
  /** @type {ImageBitmapOptions} */
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const image = await createImageBitmap(blob, options);
  const { width, height } = image;
  const data = new Uint8Array(width * height);
  const maxWidth = Math.min(width, 8192);
  const maxRows = Math.floor(MAX_DECODED_PIXELS / maxWidth);
  const maxHeight = Math.max(1, Math.min(height, 8192, maxRows));
  const canvas = createCanvas(maxWidth, maxHeight);
  const context = getContext(canvas, { willReadFrequently: true });
  for (let top = 0; top < height; top += maxHeight) {
    for (let left = 0; left < width; left += maxWidth) {
      const partWidth = Math.min(maxWidth, width - left);
      const partHeight = Math.min(maxHeight, height - top);
      context.drawImage(image, left, top, partWidth, partHeight, 0, 0, partWidth, partHeight);
      const rgba = context.getImageData(0, 0, partWidth, partHeight).data;
      for (let y = 0, from = 0; y < partHeight; y += 1) {
        let to = (top + y) * width + left;
        for (const end = to + partWidth; to < end; to += 1, from += 4) data[to] = rgba[from];
      }
    }
  }
  image.close();
  return { width, height, data };
}

/**
 * Return the 256 colours of a colormap, RGB bytes in base64, as RGBA pixels.
 * @param {string} base64
 */
export function decodeColormap(base64) {
  const rgb = atob(base64);
  const bytes = new Uint8ClampedArray(1024);
  for (let level = 0; level < 256; level += 1) {
    for (let component = 0; component < 3; component += 1) {
      bytes[4 * level + component] = rgb.charCodeAt(3 * level + component);
    }
    bytes[4 * level + 3] = 255;
  }
  return new Uint32Array(bytes.buffer);
}

/**
 * Return the number of columns that makes a grid nearest to square, as actgrid.render does.
 * @param {number} count
 * @param {number} height
 * @param {number} width
 * @param {number} padding
 */
export function chooseColumns(count, height, width, padding) {
  let bestRatio = Infinity;
  let bestColumns = 1;
  for (let columns = count; columns > 0; columns -= 1) {
    const gridWidth = columns * (width + padding) - padding;
    const gridHeight = Math.ceil(count / columns) * (height + padding) - padding;
    const ratio = Math.max(gridWidth, gridHeight) / Math.min(gridWidth, gridHeight);
    if (ratio < bestRatio) [bestRatio, bestColumns] = [ratio, columns];
  }
  return bestColumns;
}

/** The layout of the tiles of some channels in one picture. */
export class Grid {
  /**
   * `columns` null: the number of columns that makes the grid nearest to square. The picture of a
   * long sequence, a column of steps for each channel, is cut into that number of strips.
   * @param {Api.Tiles} tiles
   * @param {number[]} channels
   * @param {number | null} [columns]
   */
  constructor(tiles, channels, columns = null) {
    const { height, width, slices, joined } = tiles;
    const count = channels.length * slices;
    this.tiles = tiles;
    this.channels = channels;
    this.padding = joined ? 0 : 1;
    const maxRows = Math.max(1, Math.floor(MAX_SIDE / (height + this.padding)));
    const maxColumns = Math.max(1, Math.floor(MAX_SIDE / (width + this.padding)));
    const minColumns = Math.ceil(count / maxRows);
    const preferred = Math.max(columns ?? this.chooseColumns(count), minColumns);
    this.columns = Math.min(preferred, maxColumns, Math.max(count, 1));
    this.rows = Math.ceil(count / this.columns);
    this.count = count;
    if (this.columns * (width + 1) * this.rows * (height + 1) > MAX_PIXELS) this.padding = 0;
    this.width = this.columns * (width + this.padding) - this.padding;
    this.height = this.rows * (height + this.padding) - this.padding;
    this.strips = 1;
    this.stripHeight = height;
    if (this.isSequence && height > MAX_UNFOLDED_STEPS && height > count) {
      const strips = columns ?? (Math.round(Math.sqrt(height / (count + 1))) || 1);
      this.stripHeight = Math.ceil(height / Math.min(strips, height));
      this.strips = Math.ceil(height / this.stripHeight);
      this.width = this.strips * (count + 1) - 1;
      this.height = this.stripHeight;
    }
    this.positions = new Map(channels.map((channel, position) => [channel, position]));
  }

  get isSequence() {
    const { height, slices, joined } = this.tiles;
    return joined && height > 1 && slices === 1;
  }

  /** @param {number} count */
  chooseColumns(count) {
    const { height, width, slices } = this.tiles;
    if (slices > 1) return slices;
    if (this.isSequence) return count; // the columns of a sequence form one picture
    return chooseColumns(count, height, width, this.padding);
  }

  /**
   * Return the rectangles of a cell, without their padding: several if it is cut into strips.
   * @param {number} index
   * @returns {Rect[]}
   */
  getCellRects(index) {
    const { height, width } = this.tiles;
    const x = (index % this.columns) * (width + this.padding);
    const y = Math.floor(index / this.columns) * (height + this.padding);
    if (this.strips === 1) return [{ x, y, width, height }];
    return Array.from({ length: this.strips }, (_, strip) => ({
      x: strip * (this.count + 1) + index,
      y: 0,
      width,
      height: Math.min(this.stripHeight, height - strip * this.stripHeight),
    }));
  }

  /**
   * Return the first rectangle of a cell, without its padding.
   * @param {number} index
   */
  getCellRect(index) {
    return this.getCellRects(index)[0];
  }

  /**
   * Return the index of the cell at a pixel, its padding included; null outside of the grid.
   * @param {number} x
   * @param {number} y
   */
  findCell(x, y) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return null;
    if (this.strips > 1) {
      const channel = Math.floor(x) % (this.count + 1);
      const step = Math.floor(x / (this.count + 1)) * this.stripHeight + Math.floor(y);
      return channel < this.count && step < this.tiles.height ? channel : null;
    }
    const column = Math.floor(x / (this.tiles.width + this.padding));
    const index = Math.floor(y / (this.tiles.height + this.padding)) * this.columns + column;
    return index < this.count ? index : null;
  }

  /**
   * Return the channel of a cell.
   * @param {number} cell
   */
  getChannel(cell) {
    return this.channels[Math.floor(cell / this.tiles.slices)];
  }

  /**
   * Return the first cell of a channel; undefined if the grid does not contain the channel.
   * @param {number} channel
   */
  getFirstCell(channel) {
    const position = this.positions.get(channel);
    return position === undefined ? undefined : position * this.tiles.slices;
  }

  /**
   * Draw the tiles in colour on a new canvas, one pixel per level.
   * @param {Levels} levels
   * @param {Uint32Array} lut
   */
  paint(levels, lut) {
    const canvas = createCanvas(this.width, this.height);
    const context = getContext(canvas);
    const image = new ImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    const { height, width, slices, columns } = this.tiles;
    for (let cell = 0; cell < this.count; cell += 1) {
      const tile = this.getChannel(cell) * slices + (cell % slices);
      const x = (tile % columns) * width;
      const top = Math.floor(tile / columns) * height;
      for (const [strip, rect] of this.getCellRects(cell).entries()) {
        const y = top + strip * this.stripHeight;
        const start = rect.y * this.width + rect.x;
        writeColours(levels, { ...rect, x, y }, lut, pixels, start, this.width);
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }
}

/**
 * Draw levels, or a part of them, in colour on a new canvas, one pixel per level.
 * @param {Levels} levels
 * @param {Uint32Array} lut
 * @param {Rect} [part]
 */
export function paintLevels(levels, lut, part = { ...levels, x: 0, y: 0 }) {
  const canvas = createCanvas(part.width, part.height);
  const image = new ImageData(part.width, part.height);
  writeColours(levels, part, lut, new Uint32Array(image.data.buffer), 0, part.width);
  getContext(canvas).putImageData(image, 0, 0);
  return canvas;
}

/**
 * Write the colours of a part of the levels to pixels, from index `start` in rows of `stride`.
 * @param {Levels} levels
 * @param {Rect} part
 * @param {Uint32Array} lut
 * @param {Uint32Array} pixels
 * @param {number} start
 * @param {number} stride
 */
function writeColours(levels, { x, y, width, height }, lut, pixels, start, stride) {
  for (let row = 0; row < height; row += 1) {
    const from = (y + row) * levels.width + x;
    const to = start + row * stride;
    for (let column = 0; column < width; column += 1) {
      pixels[to + column] = lut[levels.data[from + column]];
    }
  }
}
