#include "farm/report_assets.hpp"

namespace gallop {

const char* const report_style = R"css(
:root { color-scheme: light dark; --ground: #fbfbfa; --paper: #fff; --ink: #1d2126; --soft: #68707a;
  --line: #dfe2e6; --mark: #2f6fde; --good: #26864a; --bad: #c0352b; }
@media (prefers-color-scheme: dark) { :root { --ground: #15171a; --paper: #1c1f23; --ink: #e6e8ea;
  --soft: #98a1ab; --line: #31363c; --mark: #6ea3ff; --good: #5cc082; --bad: #ff7b70; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 90rem; background: var(--ground); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1rem; }
h1 { margin: 0; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 0 0 .5rem; font-size: 1.05rem; }
section { margin: 1rem 0; padding: 1rem; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
.state { margin: 0; color: var(--mark); font-weight: 600; }
.state.finished { color: var(--good); } .state.dead, .bad { color: var(--bad); }
.again, .small { color: var(--soft); } .small { font-size: .85rem; margin: .3rem 0 0; }
.bar { height: 10px; background: var(--line); border-radius: 5px; overflow: hidden; }
.bar div { height: 100%; background: var(--mark); }
.figures { display: flex; flex-wrap: wrap; gap: .2rem 1.5rem; margin: .7rem 0 0; padding: 0; list-style: none; color: var(--soft); }
.figures b { color: var(--ink); }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 0 1rem; align-items: start; }
section { min-width: 0; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } .n { text-align: right; } .wide { width: 30%; }
.share { height: 8px; background: var(--mark); border-radius: 2px; }
svg { width: 100%; max-height: 16rem; } svg text { fill: var(--soft); font-size: 11px; }
svg rect { fill: var(--mark); } svg .grid { stroke: var(--line); }
.failure { border-top: 1px solid var(--line); padding: .35rem 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: .6rem; background: var(--ground); border-radius: 6px; font-size: .8rem; }
.tools { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin-bottom: .8rem; }
input, select, button { font: inherit; color: inherit; background: var(--ground); border: 1px solid var(--line); border-radius: 6px; padding: .3rem .6rem; }
input { flex: 1 1 14rem; min-width: 0; } button { cursor: pointer; } button:disabled { opacity: .4; cursor: default; }
#sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: .8rem; }
.clip { display: block; text-align: left; padding: 0; overflow: hidden; }
.clip img, .clip .none { display: block; width: 100%; aspect-ratio: 4 / 1; object-fit: contain; background: #181a1e; }
.clip .none { display: grid; place-items: center; color: #98a1ab; }
.clip b, .clip span { display: block; padding: 0 .5rem; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.clip b { padding-top: .3rem; } .clip span { color: var(--soft); font-size: .85rem; padding-bottom: .3rem; }
.clip:focus-visible, .clip:hover { outline: 2px solid var(--mark); }
dialog { max-width: min(96vw, 70rem); border: 1px solid var(--line); border-radius: 10px; background: var(--paper); color: var(--ink); }
dialog::backdrop { background: rgb(0 0 0 / .6); }
video { display: block; max-width: 100%; max-height: 70vh; margin: 0 auto; background: #000; min-width: min(80vw, 28rem); }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem 1rem; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
)css";

const char* const report_sheet = R"html(<section id=clips><h2>Clips</h2>
<div class=tools><input id=search type=search placeholder="name, prompt or id" aria-label="name, prompt or id">
<span id=axes class=tools style="margin:0"></span>
<span id=count class=small></span>
<button id=back aria-label="earlier clips">‹</button><span id=page></span><button id=on aria-label="further clips">›</button></div>
<div id=sheet></div></section>
<dialog id=player><video controls loop playsinline></video><dl></dl>
<div class=tools><button id=before>‹ previous</button><button id=after>next ›</button><button id=close>close</button></div></dialog>
)html";

const char* const report_script = R"js(
const per_page = 48, clips = [];
let found = [], page = 0, shown = -1;
const at = id => document.getElementById(id);
const made = (tag, text) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; return e; };

/* Called by the data scripts beside this page. */
function gallop_clips(more) { for (const clip of more) clips.push(clip); }

function matches(clip, words) {
  for (const select of document.querySelectorAll('#axes select'))
    if (select.value !== '' && JSON.stringify((clip.cell || {})[select.dataset.axis]) !== select.value) return false;
  return words.every(word => clip.words.includes(word));
}
function search() {
  const words = at('search').value.toLowerCase().split(/\s+/).filter(Boolean);
  found = clips.filter(clip => matches(clip, words));
  page = 0;
  draw();
}
function caption(clip) {
  return [clip.size, clip.duration.toFixed(1) + ' s',
          ...Object.entries(clip.cell || {}).map(([axis, value]) => axis + ' ' + (typeof value === 'object' ? JSON.stringify(value) : value))].join(' · ');
}
function draw() {
  const pages = Math.max(1, Math.ceil(found.length / per_page));
  at('count').textContent = found.length + (found.length === 1 ? ' clip' : ' clips');
  at('page').textContent = (page + 1) + ' / ' + pages;
  at('back').disabled = page === 0;
  at('on').disabled = page + 1 >= pages;
  at('sheet').replaceChildren(...found.slice(page * per_page, (page + 1) * per_page).map((clip, i) => {
    const card = made('button');
    card.className = 'clip';
    if (clip.strip) {
      const strip = made('img');
      strip.loading = 'lazy';
      strip.alt = 'first, middle and last picture of ' + clip.name + ' over its sound';
      strip.src = clip.strip;
      card.append(strip);
    } else {
      const none = made('div', 'no preview yet');
      none.className = 'none';
      card.append(none);
    }
    card.append(made('b', clip.name), made('span', caption(clip)));
    card.onclick = () => play(page * per_page + i);
    return card;
  }));
}
function play(index) {
  if (index < 0 || index >= found.length) return;
  shown = index;
  const clip = found[index], video = document.querySelector('#player video');
  video.src = clip.video;
  document.querySelector('#player dl').replaceChildren(...[['name', clip.name], ['prompt', clip.prompt],
    ['', caption(clip)], ['seed', clip.seed], ['id', clip.id], ['rendered', clip.seconds.toFixed(1) + ' s on ' + clip.host]]
    .flatMap(([key, value]) => [made('dt', key), made('dd', value)]));
  at('before').disabled = index === 0;
  at('after').disabled = index + 1 === found.length;
  if (!at('player').open) at('player').showModal();
  video.play().catch(() => {});
}
at('player').onclose = () => { const video = document.querySelector('#player video'); video.pause(); video.removeAttribute('src'); video.load(); };
at('player').onclick = event => { if (event.target === at('player')) at('player').close(); };
at('close').onclick = () => at('player').close();
at('before').onclick = () => play(shown - 1);
at('after').onclick = () => play(shown + 1);
at('back').onclick = () => { --page; draw(); at('clips').scrollIntoView(); };
at('on').onclick = () => { ++page; draw(); at('clips').scrollIntoView(); };
at('search').oninput = search;
document.onkeydown = event => {
  if (!at('player').open || event.target.tagName === 'VIDEO') return;
  if (event.key === 'ArrowLeft') play(shown - 1);
  if (event.key === 'ArrowRight') play(shown + 1);
};
for (const [axis, values] of Object.entries(axes)) {
  const select = made('select');
  select.dataset.axis = axis;
  select.ariaLabel = axis;
  const all = made('option', axis + ': all');
  all.value = '';
  select.append(all);
  for (const value of values) {
    const option = made('option', axis + ': ' + (typeof value === 'object' ? JSON.stringify(value) : value));
    option.value = JSON.stringify(value);
    select.append(option);
  }
  select.onchange = search;
  at('axes').append(select);
}
/* Called once, behind the last data script. */
function loaded() {
  for (const clip of clips) clip.words = (clip.name + ' ' + clip.prompt + ' ' + clip.id).toLowerCase();
  search();
}
)js";

}  // namespace gallop
