"use strict";
// The server writes the figures; this fetches them anew and puts them in place of the old ones.
setInterval(async () => {
  if (document.hidden || !getSelection().isCollapsed) return;
  const main = document.querySelector("main");
  try {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const news = new DOMParser().parseFromString(await answer.text(), "text/html");
    main.replaceWith(news.querySelector("main"));
    document.title = news.title;
  } catch {
    const state = document.querySelector("#state");
    state.className = "badge bad";
    state.textContent = "no answer: these figures are old";
  }
}, 5000);
