// Ways in: dropped, pasted, picked, or one of the samples.
import { byId, make } from "./dom.js";

const SAMPLES = ["street.jpg", "shapes.jpg", "more-shapes.jpg"];

export function listen(add) {
  byId("pick").onclick = () => byId("picker").click();
  byId("picker").onchange = (event) => {
    add([...event.target.files]);
    event.target.value = ""; // the same file may be picked again
  };
  document.addEventListener("paste", (event) => pasted(event, add));
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) document.addEventListener(kind, (event) => dragged(event, add));
  byId("samples").replaceChildren(...SAMPLES.map((name) => sample(name, add)));
}

function pasted(event, add) {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length || event.target.closest?.("input, textarea, [contenteditable]")) return;
  event.preventDefault();
  add(files);
}

function dragged(event, add) {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
  event.preventDefault();
  const leaves = event.type === "drop" || (event.type === "dragleave" && !event.relatedTarget);
  document.body.classList.toggle("is-dragging", !leaves);
  if (event.type === "drop") add([...event.dataTransfer.files]);
}

function sample(name, add) {
  const address = `/static/page/samples/${name}`;
  const title = name.replace(".jpg", "").replaceAll("-", " ");
  const fetched = async () => add([new File([await (await fetch(address)).blob()], name, { type: "image/jpeg" })]);
  const image = make("img", { src: address, alt: "", width: 96, height: 64, loading: "lazy" });
  return make("li", {}, make("button", { type: "button", className: "sample", onclick: fetched }, image, make("span", {}, title)));
}
