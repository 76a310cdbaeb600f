"use strict";
// What the pointer is over in a plot, and search and filter of the samples. Without this script
// the page shows the same, in full.
(() => {
  const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

  const nearest = (values, at) => {
    let best = 0;
    values.forEach((value, index) => {
      if (Math.abs(value - at) < Math.abs(values[best] - at)) best = index;
    });
    return best;
  };

  for (const data of document.querySelectorAll('figure > script[type="application/json"]')) {
    const figure = data.parentElement;
    const keys = figure.querySelector(".keys");
    const readout = figure.querySelector(".readout");
    const { frames, x, lines } = JSON.parse(data.textContent);
    figure.querySelectorAll("svg").forEach((picture, number) => {
      const frame = frames[number];
      const ruler = document.createElementNS("http://www.w3.org/2000/svg", "line");
      ruler.setAttribute("class", "ruler");
      const { width, height } = picture.viewBox.baseVal;
      ruler.setAttribute("y1", frame[1] * height);
      ruler.setAttribute("y2", (frame[1] + frame[3]) * height);

      picture.addEventListener("pointermove", (event) => {
        const box = picture.getBoundingClientRect();
        const share = ((event.clientX - box.left) / box.width - frame[0]) / frame[2];
        const at = x[0] + share * (x[1] - x[0]);
        const found = lines.map((line) => [line, nearest(line.x, at)]);
        const places = found.map(([line, index]) => line.x[index]);
        const place = places[nearest(places, at)];
        const left = (frame[0] + (frame[2] * (place - x[0])) / (x[1] - x[0] || 1)) * width;
        ruler.setAttribute("x1", left);
        ruler.setAttribute("x2", left);
        picture.append(ruler);
        const values = found.map(([line, index]) => `${line.label} ${short.format(line.y[index])}`);
        readout.textContent = `at ${short.format(place)}: ${values.map((text) => text.trim()).join(", ")}`;
        keys.hidden = true;
        readout.hidden = false;
      });
      picture.addEventListener("pointerleave", () => {
        ruler.remove();
        keys.hidden = false;
        readout.hidden = true;
      });
    });
  }

  const tools = document.querySelector("#samples .tools");
  if (!tools) return;
  const search = document.getElementById("sample-search");
  const filter = document.getElementById("sample-filter");
  const count = document.getElementById("sample-count");
  const more = document.getElementById("more-samples");
  const samples = [...document.querySelectorAll("article.sample")].map((card) => ({
    card,
    text: [...card.querySelectorAll(".text")].map((part) => part.textContent).join("\n").toLowerCase(),
  }));

  const fits = ({ card, text }) => {
    const wanted = filter.value;
    const kept =
      wanted === "" ||
      (wanted === "at-odds" ? card.dataset.atOdds === "yes" : card.dataset.preferred === wanted);
    return kept && text.includes(search.value.trim().toLowerCase());
  };
  const update = () => {
    let shown = 0;
    for (const sample of samples) {
      const kept = fits(sample);
      sample.card.hidden = !kept;
      shown += kept ? 1 : 0;
    }
    count.textContent = `${shown} of ${samples.length}`;
    if (more && (filter.value !== "" || search.value.trim() !== "")) more.open = true;
  };
  search.addEventListener("input", update);
  filter.addEventListener("input", update);
  tools.hidden = false;
  update();
})();
