/** Capturing of an image with the webcam. */

import { createCanvas, button, div, getContext, make, showToast } from "./dom.js";
import { encodeCanvas } from "./save.js";

/**
 * Show the webcam in a dialog; return the captured image file, null if the user cancels.
 * @returns {Promise<Blob | null>}
 */
export async function captureImage() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    showToast(`The webcam is not available: ${error.message}`, "error");
    return null;
  }
  const name = "Webcam preview";
  const video = make("video", { autoplay: true, playsinline: true, "aria-label": name });
  video.muted = true;
  video.srcObject = stream;
  const dialog = make("dialog", { class: "webcam", "aria-label": "Webcam" });
  document.body.append(dialog);
  try {
    return await new Promise((resolve) => {
      const capture = button("Take picture", { class: "strong", disabled: true, onclick: () => {
        resolve(captureFrame(video));
        dialog.close();
      } });
      video.addEventListener("loadeddata", () => { capture.disabled = false; });
      const cancel = button("Cancel", { onclick: () => dialog.close() });
      dialog.append(video, div("tools", capture, cancel));
      dialog.addEventListener("close", () => resolve(null));
      dialog.showModal();
    });
  } finally {
    for (const track of stream.getTracks()) track.stop();
    dialog.remove();
  }
}

/**
 * Return the current frame of a video as a JPEG file.
 * @param {HTMLVideoElement} video
 */
function captureFrame(video) {
  const canvas = createCanvas(video.videoWidth, video.videoHeight);
  getContext(canvas).drawImage(video, 0, 0);
  return encodeCanvas(canvas, "image/jpeg", 0.92);
}
