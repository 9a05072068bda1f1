// `rank`: put the candidates in order, best first; equally good ones share a place.

import { numberRows } from "../studio.js";

export default function ranking(root, { changed, submit }) {
  const list = root.querySelector(".candidates");
  const cards = [...list.children];
  const live = root.querySelector("[aria-live]");
  const numberOf = (card) => Number(card.dataset.number);
  const cardOf = (number) => cards.find((card) => numberOf(card) === number);
  let places = []; // Groups of candidates' numbers, best first.
  let byItself = null; // The candidate that took the last place because no other was left.

  const placeOf = (number) => places.findIndex((group) => group.includes(number));
  const unplaced = () => cards.map(numberOf).filter((number) => placeOf(number) < 0);

  function show() {
    for (const card of cards) {
      const place = placeOf(numberOf(card));
      const shared = place >= 0 && places[place].length > 1;
      card.querySelector(".place").textContent = place < 0 ? "not placed" : `place ${place + 1}${shared ? ", shared" : ""}`;
      card.classList.toggle("placed", place >= 0);
      card.classList.toggle("shared", shared);
      card.querySelector(".pick").setAttribute("aria-pressed", String(place >= 0));
      for (const control of card.querySelectorAll(".up, .down, .tie")) control.hidden = place < 0;
    }
    const held = document.activeElement;
    list.append(...[...places.flat(), ...unplaced()].map(cardOf));
    if (list.contains(held)) held.focus({ preventScroll: true });
  }

  function done(number) {
    byItself = null;
    places = places.filter((group) => group.length);
    show();
    const card = cardOf(number);
    card.scrollIntoView({ block: "nearest" });
    live.textContent = `Candidate ${card.querySelector("kbd").textContent}: ${card.querySelector(".place").textContent}`;
    changed();
  }

  // The next place for it, or none again; the last one left takes the last place by itself.
  function pick(number) {
    if (number === byItself) return done(number); // Who gives every place by hand means this one.
    if (placeOf(number) >= 0) {
      takeOut(number);
      return done(number);
    }
    places.push([number]);
    const [last, ...more] = unplaced();
    const isLast = last !== undefined && !more.length;
    if (isLast) places.push([last]);
    done(number);
    if (isLast) byItself = last;
  }

  function takeOut(number) {
    places[placeOf(number)] = places[placeOf(number)].filter((other) => other !== number);
  }

  // Out of a shared place it goes beside it, else past its neighbour.
  function move(number, step) {
    const place = placeOf(number);
    if (place < 0) return;
    if (places[place].length > 1) {
      takeOut(number);
      places.splice(step < 0 ? place : place + 1, 0, [number]);
    } else if (places[place + step]) {
      [places[place], places[place + step]] = [places[place + step], places[place]];
    }
    done(number);
  }

  // Share the place above, or stop sharing.
  function tie(number) {
    const place = placeOf(number);
    if (place < 0) return;
    if (places[place].length > 1) {
      takeOut(number);
      places.splice(place + 1, 0, [number]);
    } else if (place > 0) {
      takeOut(number);
      places[place - 1].push(number);
    }
    done(number);
  }

  function key(event) {
    const meant = cards.find((card) => card.querySelector("kbd").textContent === event.key);
    if (meant) {
      pick(numberOf(meant));
      list.focus({ preventScroll: true });
      return true;
    }
    const card = event.target.closest?.(".candidate");
    if (event.key === "Enter" && !unplaced().length) {
      submit();
      return true;
    }
    if (!/^Arrow(Up|Down)$/.test(event.key) && event.key !== "=") return false;
    if (!card) {
      list.firstElementChild.querySelector(".pick").focus();
      return true;
    }
    const step = event.key === "ArrowUp" ? -1 : 1;
    if (event.key === "=") tie(numberOf(card));
    else if (event.shiftKey) move(numberOf(card), step);
    else (step < 0 ? card.previousElementSibling : card.nextElementSibling)?.querySelector(".pick").focus();
    return true;
  }

  for (const card of cards) {
    const number = numberOf(card);
    card.querySelector(".pick").addEventListener("click", () => pick(number));
    card.querySelector(".up").addEventListener("click", () => move(number, -1));
    card.querySelector(".down").addEventListener("click", () => move(number, 1));
    card.querySelector(".tie").addEventListener("click", () => tie(number));
  }
  numberRows(cards);
  show();
  return {
    read: () => (places.length ? JSON.stringify(places) : ""),
    write(answer) {
      places = JSON.parse(answer || "[]");
      byItself = null;
      show();
    },
    fault: () => cards.length < 2 ? "There is nothing to rank: skip the example." : (unplaced().length ? `${unplaced().length} candidates have no place yet.` : ""),
    focus: () => list.focus({ preventScroll: true }),
    key,
  };
}
