// The request that gives what is shown, to take along. The key is a placeholder, whatever was typed.
import { facts } from "./facts.js";

export const languages = { curl, Python: python, JavaScript: javascript };

const WAIT = "wait=30";

function curl(query) {
  const key = facts.needsKey ? " -H 'X-API-Key: YOUR_KEY'" : "";
  return `curl -s${key} -F image=@photo.jpg '${location.origin}/predict?${url(query)}&${WAIT}'`;
}

function python(query) {
  const params = [...query, WAIT.split("=")].map(([name, value]) => `    ${JSON.stringify(name)}: ${JSON.stringify(value)},`);
  return [
    "import httpx  # pip install httpx",
    "",
    "params = {",
    ...params,
    "}",
    'with open("photo.jpg", "rb") as image:',
    `    answer = httpx.post("${location.origin}/predict", params=params,${key('headers={"X-API-Key": "YOUR_KEY"}, ')}`,
    '                        files={"image": image}, timeout=60)',
    "answer.raise_for_status()",
    'for found in answer.json()["result"]["detections"]:',
    '    print(found["label"], found["score"], found["box"])',
  ].join("\n");
}

function javascript(query) {
  return [
    'import { readFile } from "node:fs/promises"; // Node 18 or newer, as photo.mjs',
    "",
    "const body = new FormData();",
    'body.append("image", new Blob([await readFile("photo.jpg")]), "photo.jpg");',
    `const answer = await fetch("${location.origin}/predict?${url(query)}&${WAIT}", {`,
    `  method: "POST",${key('\n  headers: { "X-API-Key": "YOUR_KEY" },')}`,
    "  body,",
    "});",
    "if (!answer.ok) throw new Error(await answer.text());",
    "for (const { label, score, box } of (await answer.json()).result.detections) console.log(label, score, box);",
  ].join("\n");
}

const key = (text) => (facts.needsKey ? ` ${text}`.trimEnd() : "");

// An apostrophe would end the quotes of the shell.
const url = (query) => query.toString().replaceAll("'", "%27");
