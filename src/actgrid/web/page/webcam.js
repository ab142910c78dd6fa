/** A picture taken by the webcam. */

import { blank, button, div, make, toast } from "./dom.js";
import { fileOf } from "./save.js";

/** Show what the webcam sees; return the picture that is taken, null if none is. */
export async function takePicture() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    toast(`The webcam cannot be used: ${error.message}`, "error");
    return null;
  }
  const name = "What the webcam sees";
  const video = make("video", { autoplay: true, playsinline: true, "aria-label": name });
  video.muted = true;
  video.srcObject = stream;
  const dialog = make("dialog", { class: "webcam", "aria-label": "Webcam" });
  document.body.append(dialog);
  try {
    return await new Promise((resolve) => {
      const capture = button("Take picture", { class: "strong", disabled: true, onclick: () => {
        resolve(frame(video));
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

/** The frame a video shows, as a JPEG file. */
function frame(video) {
  const canvas = blank(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  return fileOf(canvas, "image/jpeg", 0.92);
}
