"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  const panels = [...document.querySelectorAll("button.panel")];
  const cards = [...document.querySelectorAll(".strip")].filter((card) => card.querySelector(".panel"));
  const image = viewer.querySelector("img");
  const caption = viewer.querySelector("figcaption");
  let current = 0;

  function show(index) {
    current = (index + panels.length) % panels.length;
    const panel = panels[current];
    const source = panel.querySelector("img");
    image.src = source.src;
    image.alt = source.alt;
    caption.textContent = `${panel.closest(".strip").dataset.name} · ${panel.dataset.caption}`;
  }

  // The same column of the image above or below.
  function showCard(step) {
    const card = panels[current].closest(".strip");
    const column = [...card.querySelectorAll(".panel")].indexOf(panels[current]);
    const next = cards[(cards.indexOf(card) + step + cards.length) % cards.length];
    const others = next.querySelectorAll(".panel");
    show(panels.indexOf(others[Math.min(column, others.length - 1)]));
  }

  panels.forEach((panel, index) => {
    panel.addEventListener("click", () => {
      show(index);
      viewer.showModal();
    });
  });
  viewer.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button && button.dataset.step) show(current + Number(button.dataset.step));
    else if (event.target !== image && event.target !== caption) viewer.close();
  });
  viewer.addEventListener("close", () => panels[current].focus());
  viewer.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [show, current - 1], ArrowRight: [show, current + 1],
                    ArrowUp: [showCard, -1], ArrowDown: [showCard, 1] };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    step[0](step[1]);
  });
})();
