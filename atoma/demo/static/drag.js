// Drag and drop of cards within one board. A card dragged to the other board's lanes is not taken: devices do not touch.

let dragged = null;

/** Makes a card something that can be dragged. */
export function carry(node, id) {
  node.addEventListener("dragstart", (event) => {
    dragged = {node, id, board: node.closest(".board")};
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", id);
    requestAnimationFrame(() => node.classList.add("dragged"));
  });
  node.addEventListener("dragend", () => {
    node.classList.remove("dragged");
    clear();
    dragged = null;
  });
}

function clear() {
  for (const mark of document.querySelectorAll(".drop-here")) mark.classList.remove("drop-here");
  for (const mark of document.querySelectorAll(".drop-before")) mark.classList.remove("drop-before");
}

/** The card that the dragged one would come to stand before, or null for the end of the lane. */
function cardAt(lane, y) {
  return [...lane.querySelectorAll(".card")].find((card) => {
    const box = card.getBoundingClientRect();
    return y < box.top + box.height / 2;
  }) ?? null;
}

/** Calls `drop(id, before)` when a card of the same board is dropped on the lane; `before` is a card id or null. */
export function acceptDrops(lane, drop) {
  const welcome = () => dragged && dragged.board.contains(lane);
  lane.addEventListener("dragover", (event) => {
    if (!welcome()) return;
    event.preventDefault();
    clear();
    lane.classList.add("drop-here");
    cardAt(lane, event.clientY)?.classList.add("drop-before");
  });
  lane.addEventListener("dragleave", (event) => { if (!lane.contains(event.relatedTarget)) clear(); });
  lane.addEventListener("drop", (event) => {
    if (!welcome()) return;
    event.preventDefault();
    let before = cardAt(lane, event.clientY);
    if (before === dragged.node) before = before.nextElementSibling;
    const unmoved = dragged.node.parentElement === lane.querySelector(".cards") && dragged.node.nextElementSibling === before;
    clear();
    if (!unmoved) drop(dragged.id, before?.dataset.key ?? null);
  });
}
