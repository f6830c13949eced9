// Runs before the first paint, so that a chosen theme does not flash. Plain script: modules run too late.
(() => {
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("atoma-theme"); } catch { return null; } };
  const apply = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; };
  apply(stored());
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const dark = () => getComputedStyle(root).colorScheme === "dark"
      || (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
    const label = () => { button.setAttribute("aria-label", dark() ? "Use the light theme" : "Use the dark theme"); };
    label();
    button.addEventListener("click", () => {
      const next = dark() ? "light" : "dark";
      apply(next);
      try { localStorage.setItem("atoma-theme", next); } catch { /* private mode: the choice lasts for this page */ }
      label();
    });
  });
})();
