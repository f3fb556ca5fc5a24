// The camera: asked for on a click, stopped by another and when the page is left.
import { announce, byId } from "./dom.js";

let stream = null;
let shots = 0;

export function listen(add) {
  byId("camera-start").onclick = start;
  byId("camera-stop").onclick = () => stop(true);
  byId("camera-take").onclick = async () => add([await shot()]);
  window.addEventListener("pagehide", () => stop(false));
}

async function start() {
  if (stream) return;
  say("");
  if (!navigator.mediaDevices) return say("Browsers give the camera only to pages that come over https or from localhost.");
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
  } catch (error) {
    return say(refusals[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
  stream.getVideoTracks()[0].onended = () => stop(false);
  byId("video").srcObject = stream;
  await byId("video").play();
  byId("camera").hidden = false;
  byId("camera-take").focus();
  announce("The camera is on.");
}

const refusals = {
  NotAllowedError: "The camera was refused. Allow it for this page in the browser, then try again.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera is in use by another program.",
};

function stop(back) {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = byId("video").srcObject = null;
  byId("camera").hidden = true;
  if (back) byId("camera-start").focus();
  announce("The camera is off.");
}

function shot() {
  const video = byId("video");
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  shots += 1;
  const name = `camera-${shots}.jpg`;
  const file = (blob) => new File([blob], name, { type: "image/jpeg" });
  return new Promise((resolve) => canvas.toBlob((blob) => resolve(file(blob)), "image/jpeg", 0.92));
}

function say(text) {
  byId("camera-says").textContent = text;
}
