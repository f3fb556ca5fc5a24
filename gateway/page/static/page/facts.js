// What the gateway wrote into the page: its defaults, its limits and the colours of /image.
import { byId } from "./dom.js";

export const facts = JSON.parse(byId("facts").textContent);

export function colourOf(classId) {
  const [ground, ink] = facts.colours[classId % facts.colours.length];
  return { ground, ink };
}
