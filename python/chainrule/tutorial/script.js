// Without this script the page is whole: each figure then shows its starting frame. The script
// adds the sliders and follows the filter's window.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("script");

  const show = (figure, position) => {
    for (const part of figure.querySelectorAll(".frame")) {
      const { from, to } = part.dataset;
      part.classList.toggle("on", Number(from) <= position && position <= Number(to));
    }
  };

  for (const figure of document.querySelectorAll("figure[data-slider]")) {
    const slider = figure.querySelector(".slider input");
    const output = figure.querySelector(".slider output");
    const names = JSON.parse(figure.dataset.slider);
    const move = () => {
      const position = Number(slider.value);
      output.textContent = names[position];
      slider.setAttribute("aria-valuetext", names[position]);
      show(figure, position);
      figure.dispatchEvent(new CustomEvent("moved", { detail: position }));
    };
    slider.addEventListener("input", move);
    for (const button of figure.querySelectorAll(".slider button")) {
      button.addEventListener("click", () => {
        slider.value = Number(slider.value) + Number(button.dataset.by);
        move();
      });
    }
    move();
  }

  // The filter's window on the digit, and the one number of the result that it gives.
  for (const scene of document.querySelectorAll("figure[data-window]")) {
    const maps = JSON.parse(scene.dataset.window);
    const [into, window_] = ["into", "window"].map((name) => scene.querySelector(`.${name}`));
    const cells = scene.querySelectorAll(".cell");
    const said = scene.querySelector(".said");
    let stride = 0;
    let place = [0, 0];
    const draw = () => {
      const map = maps[stride];
      const side = map.values.length;
      const [row, column] = place.map((each) => Math.min(Math.max(each, 0), side - 1));
      place = [row, column];
      const from = [row * map.stride, column * map.stride];
      window_.style.transform = `translate(${from[1] * map.pixel}px, ${from[0] * map.pixel}px)`;
      for (const cell of cells) {
        cell.style.transform = `translate(${column * map.cell}px, ${row * map.cell}px)`;
      }
      said.textContent = `z at row ${row + 1}, column ${column + 1}, from pixels ` +
        `${from[0] + 1}–${from[0] + map.size} × ${from[1] + 1}–${from[1] + map.size}: ` +
        map.values[row][column].toFixed(2);
    };
    const follow = (event) => {
      const map = maps[stride];
      const box = event.currentTarget.getBoundingClientRect();
      const across = (event.clientX - box.left) / box.width;
      const down = (event.clientY - box.top) / box.height;
      if (event.currentTarget === into) {
        const at = (share) => Math.round((share * map.pixels - map.size / 2) / map.stride);
        place = [at(down), at(across)];
      } else {
        place = [down, across].map((share) => Math.floor(share * map.values.length));
      }
      draw();
    };
    for (const picture of [into, ...scene.querySelectorAll(".outof")]) {
      picture.addEventListener("pointermove", follow);
      picture.addEventListener("pointerdown", follow);
    }
    scene.addEventListener("moved", (event) => {
      // The same place of the digit, as nearly as the new stride comes to it.
      const before = maps[stride].stride;
      stride = event.detail;
      place = place.map((each) => Math.round((each * before) / maps[stride].stride));
      draw();
    });
    place = maps[0].start;
    draw();
  }

  // What a screen folds away, paper shows.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("main details:not([open])")];
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of opened) each.open = false;
  });

  // The table of contents says where one is.
  const links = new Map();
  for (const link of document.querySelectorAll("nav a")) links.set(link.hash.slice(1), link);
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "0px 0px -75% 0px" });
  for (const section of document.querySelectorAll("main > section")) watch.observe(section);
})();
