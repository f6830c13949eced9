// Movement that explains: cards glide to their new place, packets run along the cable.

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Runs `change` and lets the elements of `selector` glide from where they were to where they are. */
export function glide(root, selector, change) {
  if (still.matches) { change(); return; }
  const were = new Map([...root.querySelectorAll(selector)].map((node) => [node, node.getBoundingClientRect()]));
  change();
  for (const node of root.querySelectorAll(selector)) {
    const was = were.get(node);
    if (!was) {
      node.animate([{opacity: 0, transform: "scale(0.96)"}, {opacity: 1, transform: "none"}], {duration: 220, easing: "ease-out"});
      continue;
    }
    const is = node.getBoundingClientRect();
    const [x, y] = [was.left - is.left, was.top - is.top];
    if (Math.abs(x) + Math.abs(y) < 1) continue;
    node.animate([{transform: `translate(${x}px, ${y}px)`}, {transform: "none"}], {duration: 260, easing: "cubic-bezier(0.2, 0.8, 0.2, 1)"});
  }
}

/** A short swell of a number that has changed. */
export function pulse(node) {
  if (!still.matches) node.animate([{transform: "scale(1.35)"}, {transform: "none"}], {duration: 280, easing: "ease-out"});
}

/** Up to five packets along the cable: `up` from the device to the hub, `down` the other way. */
export function packet(wire, direction, count) {
  if (still.matches) return;
  const leftToRight = (direction === "up") === (wire.closest(".head").dataset.device === "a");
  for (let n = 0; n < Math.min(count, 5); n += 1) {
    const dot = document.createElement("i");
    dot.className = "packet";
    wire.append(dot);
    const path = [{left: "0%"}, {left: "100%"}];
    if (!leftToRight) path.reverse();
    dot.animate(path, {duration: 620, delay: n * 110, easing: "ease-in-out", fill: "backwards"}).finished.then(() => dot.remove(), () => dot.remove());
  }
}
