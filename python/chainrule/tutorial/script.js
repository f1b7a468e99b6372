// The page is complete without this script: each figure then shows one static frame. The script
// adds the sliders, moves the filter's window, and checks the exercises.
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

  // The filter's window on the input image, and the output element that it gives.
  for (const figure of document.querySelectorAll("figure[data-window]")) {
    const maps = JSON.parse(figure.dataset.window);
    const input = figure.querySelector(".input-image svg");
    const filterWindow = figure.querySelector(".filter-window");
    const cells = figure.querySelectorAll(".output-cell");
    const readout = figure.querySelector(".readout");
    let current = 0;
    let position = maps[0].start;
    const draw = () => {
      const map = maps[current];
      const last = map.values.length - 1;
      position = position.map((each) => Math.min(Math.max(each, 0), last));
      const [down, across] = position;
      const [top, left] = [down * map.stride, across * map.stride];
      const first = maps[0].start.map((each) => each * maps[0].stride);
      filterWindow.style.transform =
        `translate(${(left - first[1]) * map.pixel}px, ${(top - first[0]) * map.pixel}px)`;
      for (const cell of cells) {
        const [x, y] = [across - map.start[1], down - map.start[0]];
        cell.style.transform = `translate(${x * map.cell}px, ${y * map.cell}px)`;
      }
      const z = map.values[down][across].toFixed(2).replace("-", "−");
      readout.textContent = `Row ${down + 1}, column ${across + 1} of the result: the window's ` +
        `top left pixel is row ${top + 1}, column ${left + 1} of the digit, and z = ${z}.`;
    };
    const follow = (event) => {
      const map = maps[current];
      const box = event.currentTarget.getBoundingClientRect();
      const shares = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
      position = event.currentTarget === input
        ? shares.map((each) => Math.round((each * map.pixels - map.size / 2) / map.stride))
        : shares.map((each) => Math.floor(each * map.values.length));
      draw();
    };
    for (const picture of [input, ...figure.querySelectorAll(".output-map svg")]) {
      picture.addEventListener("pointermove", follow);
      picture.addEventListener("pointerdown", follow);
    }
    figure.addEventListener("moved", (event) => {
      // Keep the position in the input image, rounded to the new stride.
      const before = maps[current].stride;
      current = event.detail;
      position = position.map((each) => Math.round((each * before) / maps[current].stride));
      draw();
    });
    draw();
  }

  // Reduce the font size of equations of which a part is wider than the page: one size per group,
  // of at least 14 pixels. An equation that is still too wide scrolls.
  const smallest = 14;
  const groups = [...document.querySelectorAll(".eq")];
  const fit = () => {
    for (const group of groups) {
      group.style.removeProperty("--fit");
      for (const line of group.querySelectorAll(".broken")) line.classList.remove("broken");
      const shares = [...group.querySelectorAll(".body")].map((body) => body.clientWidth / body.scrollWidth);
      const share = Math.min(...shares);
      if (share < 1) {
        const size = parseFloat(getComputedStyle(group.querySelector("math")).fontSize);
        group.style.setProperty("--fit", Math.min(1, Math.max(smallest / size, share * 0.99)));
      }
      // Indent the rest of a broken line, if there is room.
      for (const line of group.querySelectorAll(".line")) {
        const tops = [...line.children].map((part) => part.getBoundingClientRect());
        line.classList.toggle("broken", tops.at(-1).top >= tops[0].bottom);
        const body = line.parentElement;
        if (body.scrollWidth > body.clientWidth) line.classList.remove("broken");
      }
    }
  };

  // Say below each box that is wider than the page that it scrolls.
  const boxes = [...document.querySelectorAll(".eq .body, .scroll, .trace, pre")].map((box) => {
    const hint = document.createElement("p");
    hint.className = "hint";
    hint.textContent = "scrolls sideways →";
    hint.hidden = true;
    (box.closest(".row") ?? box).after(hint);
    return [box, hint];
  });
  const mark = () => {
    const wide = boxes.map(([box]) => box.scrollWidth > box.clientWidth + 1);
    boxes.forEach(([box, hint], index) => {
      box.classList.toggle("wide", wide[index]);
      hint.hidden = !wide[index];
    });
  };
  const layout = () => { fit(); mark(); };
  layout();
  addEventListener("resize", layout);
  // A listing has a width only while it is open.
  for (const each of document.querySelectorAll("details")) each.addEventListener("toggle", mark);

  // Check the exercises: the right answers are part of the page.
  const clean = (text) => text.replace(/\s+/g, "").replace(/[‘’“”']/g, '"').replaceAll("−", "-");
  const numbers = (text) => {
    // A comma is a decimal point, or separates thousands.
    const parts = clean(text).replace(/%$/, "").split("/");
    const read = (sign) => parts.map((part) => (part ? Number(part.replaceAll(",", sign)) : NaN))
      .reduce((a, b) => a / b);
    return [read("."), read("")].filter(Number.isFinite);
  };
  for (const form of document.querySelectorAll(".exercise")) {
    const { kind, answer, within, answers, names, hint, solution } = JSON.parse(form.dataset.check);
    const input = form.querySelector("input");
    const output = form.querySelector("output");
    const verdict = form.querySelector(".verdict");
    const say = (result, text) => {
      form.dataset.result = result;
      verdict.innerHTML = text;
    };
    input.addEventListener("input", () => {
      say("", "");
      if (!output) return;
      output.textContent = names[Number(input.value)];
      input.setAttribute("aria-valuetext", output.textContent);
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      let right = false;
      if (kind === "number") {
        const values = numbers(input.value);
        if (!values.length) return say("empty", "Write a number, such as 12, −0.5 or 1/3.");
        right = values.some((value) => Math.abs(value - answer) <= within);
      } else if (kind === "setting") {
        right = answers.includes(Number(input.value));
      } else {
        if (!input.value.trim()) return say("empty", "Write the missing code.");
        right = answers.some((each) => clean(each) === clean(input.value));
      }
      return right ? say("right", `Correct. ${solution}`) : say("wrong", `Not yet. ${hint}`);
    });
  }

  // For print, open all listings and show the static frame of each slider that was not moved.
  let opened = [];
  const unmoved = () => [...document.querySelectorAll("figure[data-slider]")].filter((figure) => {
    const slider = figure.querySelector(".slider input");
    return slider.value === slider.defaultValue;
  });
  addEventListener("beforeprint", () => {
    for (const figure of unmoved()) show(figure, Number(figure.dataset.static));
    opened = [...document.querySelectorAll("main details.call:not([open])")];
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const figure of unmoved()) {
      show(figure, Number(figure.querySelector(".slider input").value));
    }
    for (const each of opened) each.open = false;
  });

  // Mark the current chapter in the table of contents.
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
