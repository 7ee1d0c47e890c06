/** Taking a photo with the camera of this device. */

import { h } from "./dom.js";

/**
 * @param {import("./phone.js").Phone} phone
 * @param {(file: File) => unknown} use
 */
export function openCamera(phone, use) {
  const video = h("video", { class: "full", playsinline: true, "aria-label": "Camera" });
  video.muted = true;
  const problem = h("p", { class: "problem", role: "alert" });
  const shoot = h("button", { type: "button", class: "primary wide", disabled: true, onclick: take }, "Take the photo");
  /** @type {MediaStream | null} */
  let stream = null;
  let closed = false;
  const stop = () => stream?.getTracks().forEach((track) => track.stop());
  const sheet = phone.sheet("Camera", [h("div", { class: "full-frame" }, video), problem, shoot], {
    class: "photo-sheet",
    closed: () => {
      closed = true;
      stop();
    },
  });
  void start();

  async function start() {
    try {
      // Absent in pages that are not a secure context.
      if (!navigator.mediaDevices) throw new Error("no camera");
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1920 } } });
      if (closed) return stop();
      video.srcObject = stream;
      await video.play();
      shoot.disabled = false;
    } catch {
      problem.textContent = "There is no camera, or the browser does not allow to use it. Choose a photo from disk instead.";
    }
  }

  function take() {
    const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d")?.drawImage(video, 0, 0);
    canvas.toBlob(
      (blob) => {
        if (blob) use(new File([blob], `camera-${Date.now()}.jpg`, { type: "image/jpeg", lastModified: Date.now() }));
        sheet.close();
      },
      "image/jpeg",
      0.9,
    );
  }
}
