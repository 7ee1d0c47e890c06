// Colour scheme and text direction of all pages. A classic script in the head, so that the page is never painted in the wrong scheme.
"use strict";

(() => {
  const page = document.documentElement;

  function read(name) {
    try {
      return localStorage.getItem(`couple-${name}`);
    } catch {
      return null; // The browser may refuse storage; the page works without.
    }
  }

  function write(name, value) {
    try {
      localStorage.setItem(`couple-${name}`, value);
    } catch {}
  }

  const prefersDark = matchMedia("(prefers-color-scheme: dark)");

  function paint() {
    const { theme } = page.dataset;
    // Swagger UI has its colours by this class; the other pages use `light-dark()`.
    page.classList.toggle("dark-mode", theme === "dark" || (theme === "system" && prefersDark.matches));
  }

  page.dataset.theme = read("theme") ?? "system";
  paint();
  prefersDark.addEventListener("change", paint);
  page.dir = read("direction") ?? "ltr";

  document.addEventListener("DOMContentLoaded", () => {
    const theme = document.querySelector("#theme");
    const direction = document.querySelector("#direction");
    if (theme) {
      theme.value = page.dataset.theme;
      theme.addEventListener("change", () => {
        page.dataset.theme = theme.value;
        write("theme", theme.value);
        paint();
      });
    }
    if (direction) {
      const show = () => direction.setAttribute("aria-pressed", String(page.dir === "rtl"));
      show();
      direction.addEventListener("click", () => {
        page.dir = page.dir === "rtl" ? "ltr" : "rtl";
        write("direction", page.dir);
        show();
      });
    }
  });
})();
