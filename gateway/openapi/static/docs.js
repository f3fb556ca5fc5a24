// Adds a form to each operation of /docs that sends the request and shows the answer. The page is whole without it.
"use strict";

const SHOWN_HEADERS = ["content-type", "location", "content-location", "retry-after", "server-timing", "x-request-id"];

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function input(parameter) {
  const schema = parameter.schema;
  const choices = schema.type === "boolean" ? ["true", "false"] : schema.enum;
  const properties = { name: parameter.name, required: Boolean(parameter.required) };
  if (choices) {
    return make("select", properties, make("option", { value: "" }, ""), ...choices.map((each) => make("option", {}, each)));
  }
  if (schema.format === "binary" || schema.type === "array") {
    return make("input", { ...properties, type: "file", accept: "image/*", multiple: schema.type === "array" });
  }
  const type = schema.format === "password" ? "password" : "text";
  return make("input", { ...properties, type, placeholder: schema.default ?? "", autocomplete: "off" });
}

function fieldsOf(operation) {
  const form = operation.requestBody?.content["multipart/form-data"];
  const inQuery = new Set(operation.parameters.filter((each) => each.in === "query").map((each) => each.name));
  const inBody = Object.entries(form?.schema.properties ?? {})
    .filter(([name]) => !inQuery.has(name))
    .map(([name, schema]) => ({ name, schema, in: "body", required: form.schema.required?.includes(name) }));
  const key = operation.security ? [] : [{ name: "X-API-Key", schema: { format: "password" }, in: "header" }];
  return [...inBody, ...operation.parameters, ...key];
}

function requestOf(method, path, fields, form) {
  const query = new URLSearchParams();
  const headers = {};
  const body = new FormData();
  for (const field of fields) {
    const element = form.elements[field.name];
    if (element.type === "file") {
      for (const file of element.files) body.append(field.name, file);
    } else if (element.value === "") {
      continue;
    } else if (field.in === "path") {
      path = path.replace(`{${field.name}}`, encodeURIComponent(element.value));
    } else if (field.in === "header") {
      headers[field.name] = element.value;
    } else {
      (field.in === "query" ? query : body).append(field.name, element.value);
    }
  }
  const address = query.size ? `${path}?${query}` : path;
  const hasBody = fields.some((field) => field.in === "body");
  return [address, { method: method.toUpperCase(), headers, ...(hasBody ? { body } : {}) }];
}

async function show(answer, milliseconds, output) {
  const type = answer.headers.get("content-type") ?? "";
  const lines = SHOWN_HEADERS.filter((name) => answer.headers.has(name)).map((name) => `${name}: ${answer.headers.get(name)}`);
  const head = `${answer.status} ${answer.statusText} after ${Math.round(milliseconds)} ms\n${lines.join("\n")}`;
  output.replaceChildren(make("pre", { tabIndex: 0 }, head));
  if (type.startsWith("image/")) {
    output.append(make("img", { src: URL.createObjectURL(await answer.blob()), alt: "the answer" }));
    return;
  }
  const text = await answer.text();
  if (text) output.append(make("pre", { tabIndex: 0 }, type.includes("json") ? JSON.stringify(JSON.parse(text), null, 2) : text));
}

function equip(article, operation) {
  const { method, path } = article.dataset;
  const fields = fieldsOf(operation);
  const labels = fields.map((field) => make("label", {}, field.name, input(field)));
  const form = make("form", {}, ...labels, make("button", { type: "submit" }, "Send"));
  const output = make("output", { ariaLive: "polite" });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    output.replaceChildren("…");
    const begun = performance.now();
    try {
      const answer = await fetch(...requestOf(method, path, fields, form));
      await show(answer, performance.now() - begun, output);
    } catch (error) {
      output.replaceChildren(make("pre", { tabIndex: 0 }, String(error)));
    }
  });
  article.append(make("details", {}, make("summary", {}, "Send it from here"), form, output));
}

async function main() {
  const description = await (await fetch("/openapi.json")).json();
  for (const article of document.querySelectorAll("article[data-path]")) {
    equip(article, description.paths[article.dataset.path][article.dataset.method]);
  }
}

main();
