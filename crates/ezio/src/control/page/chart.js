"use strict";
/* The two pictures: throughput over time with the link's limit, and copies of each part of an image.
   Everything is made with createElement: no text of a machine is ever taken for markup. */

const SVG = "http://www.w3.org/2000/svg";

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") node.textContent = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function svg(name, attributes = {}, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/* Two digits, or three from a hundred on. */
function short(value) {
  return value >= 99.5 ? String(Math.round(value)) : value >= 9.95 ? value.toFixed(0) : value.toFixed(1);
}

function formatRate(rate) {
  if (!rate) return "0 MB/s";
  if (rate >= 9.995e8) return (rate / 1e9).toFixed(2) + " GB/s";
  if (rate >= 1e6) return short(rate / 1e6) + " MB/s";
  return Math.round(rate / 1e3) + " kB/s";
}

/* For small places: 1:09, 2:05:00. */
function formatClock(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const s = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  return s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)}` : `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

function formatBytes(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < 4) { bytes /= 1024; unit += 1; }
  return (unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toPrecision(3)) + " " + units[unit];
}

function formatTime(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.round(seconds);
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + String(s % 60).padStart(2, "0") + " s";
  return Math.floor(s / 3600) + " h " + String(Math.floor(s / 60) % 60).padStart(2, "0") + " min";
}

/* A round number above `value` to end an axis with. */
function niceTop(value) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(value, 1e6)));
  return unit * [1, 1.5, 2, 3, 5, 10].find((step) => step * unit >= value);
}

class Throughput {
  constructor(place) {
    this.place = place;
    this.points = [];
    this.step = 1;
    this.limit = null;
    this.hover = null;
    this.svg = svg("svg", { role: "img" });
    this.tip = el("div", { class: "tip", hidden: "" });
    place.append(this.svg, this.tip);
    place.addEventListener("pointermove", (event) => { this.hover = event.offsetX; this.draw(); });
    place.addEventListener("pointerleave", () => { this.hover = null; this.draw(); });
    new ResizeObserver(() => this.draw()).observe(place);
  }

  all(history) {
    this.points = history.points;
    this.step = history.step_seconds;
    this.draw();
  }

  /* The server has merged pairs of points if its step is longer now. */
  add(history) {
    while (this.step < history.step_seconds) {
      const halves = [];
      for (let i = 0; i + 1 < this.points.length; i += 2) {
        halves.push(this.points[i].map((value, k) => (value + this.points[i + 1][k]) / 2));
      }
      this.points = halves;
      this.step *= 2;
    }
    if (history.point) this.points.push(history.point);
    this.draw();
  }

  draw() {
    const width = this.place.clientWidth, height = this.place.clientHeight;
    if (!width || !height) return;
    const left = 62, bottom = 20, right = 8, top = 8;
    const most = Math.max(1e6, this.limit || 0, ...this.points.map((p) => Math.max(p[0], p[2])));
    const max = niceTop(most * 1.05), count = Math.max(this.points.length, 60);
    const x = (i) => left + (width - left - right) * i / (count - 1);
    const y = (rate) => top + (height - top - bottom) * (1 - rate / max);
    const nodes = [];
    for (const part of [0, 0.5, 1]) {
      const at = y(max * part);
      nodes.push(svg("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
      nodes.push(svg("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, formatRate(max * part)));
    }
    const end = count * this.step;
    nodes.push(svg("text", { x: left, y: height - 4 }, "0"));
    nodes.push(svg("text", { x: width - right, y: height - 4, "text-anchor": "end" }, formatTime(end)));
    if (this.limit) {
      nodes.push(svg("line", { class: "limit", x1: left, x2: width - right, y1: y(this.limit), y2: y(this.limit) }));
    }
    const path = (k) => this.points.map((p, i) => (i ? "L" : "M") + x(i).toFixed(1) + " " + y(p[k]).toFixed(1)).join("");
    if (this.points.length > 1) {
      const last = x(this.points.length - 1).toFixed(1);
      nodes.push(svg("path", { class: "area", d: path(0) + `L${last} ${y(0)}L${left} ${y(0)}Z` }));
      nodes.push(svg("path", { class: "server", d: path(2) }), svg("path", { class: "machine", d: path(0) }));
    }
    this.tip.hidden = true;
    const index = this.hover === null ? -1 : Math.round((this.hover - left) / (width - left - right) * (count - 1));
    const point = this.points[index];
    if (point) {
      nodes.push(svg("line", { class: "cursor", x1: x(index), x2: x(index), y1: top, y2: y(0) }));
      this.tip.textContent = `after ${formatTime(index * this.step)}\neach ${formatRate(point[0])}\nall ${formatRate(point[1])}\nserver ${formatRate(point[2])}`;
      this.tip.hidden = false;
      this.tip.style.left = Math.min(x(index) + 10, width - 140) + "px";
    }
    this.svg.replaceChildren(...nodes);
    const now = this.points[this.points.length - 1];
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", now
      ? `Throughput: each machine receives ${formatRate(now[0])} on average, this server sends ${formatRate(now[2])}`
      : "Throughput: nothing yet");
  }
}

/* Copies of each part: as high as the swarm has them; what only the server has is marked. */
class Copies {
  constructor(place) { this.place = place; this.images = new Map(); }

  show(images) {
    for (const image of images) {
      let shown = this.images.get(image.info_hash);
      if (!shown) {
        shown = { text: el("p", { class: "muted" }), cells: el("div", { class: "cells", role: "img" }) };
        this.place.append(el("div", { class: "copies" }, shown.text, shown.cells));
        this.images.set(image.info_hash, shown);
      }
      const copies = image.copies || [];
      const least = Math.min(...copies), mean = copies.reduce((a, b) => a + b, 0) / Math.max(1, copies.length);
      const words = copies.length ? `${mean.toFixed(1)} copies on average, ${least.toFixed(1)} of the rarest part` : "not known yet";
      shown.text.textContent = (images.length > 1 ? image.name + ": " : "") + words;
      shown.cells.setAttribute("aria-label", `${image.name}: ${words}`);
      while (shown.cells.childElementCount < copies.length) shown.cells.append(el("i"));
      const most = Math.max(2, ...copies);
      copies.forEach((count, i) => {
        const cell = shown.cells.children[i];
        cell.style.height = (100 * count / most).toFixed(1) + "%";
        cell.className = count < 2 ? "few" : "";
      });
    }
  }
}
