"use strict";
/* What the tests of the explorer do in its page: each function gets the page's document, a wait in milliseconds,
   and said(text), which waits until the page's summary holds a text and returns it. */

async function overflow(doc, wait, said) {
  const wide = [];
  for (const element of doc.querySelectorAll('body *')) {
    if (element.closest('svg') && element.tagName !== 'svg') continue;  // svg elements hide what overflows
    const box = element.getBoundingClientRect();
    if (box.width && box.right > doc.documentElement.clientWidth + 1) wide.push(element.tagName + '#' + element.id);
    if (!element.closest('svg') && element.scrollWidth > element.clientWidth + 1 && element.clientWidth
        && getComputedStyle(element).display !== 'inline') wide.push('text of ' + element.tagName + '.' + element.className);
  }
  const texts = [...doc.querySelectorAll('.plot svg')].flatMap(svg => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter(text => { const box = text.getBoundingClientRect();
      return box.left < frame.left - 1 || box.right > frame.right + 1; }).map(text => text.textContent); });
  return { wide, texts, scroll: doc.documentElement.scrollWidth, own: doc.documentElement.clientWidth,
    summary: doc.getElementById('summary').textContent, lines: doc.querySelectorAll('.plot path.line').length };
}

async function controls(doc, wait, said) {
  const view = doc.defaultView;
  const unnamed = [...doc.querySelectorAll('input, select, button, [tabindex], [role=img]')].filter(element =>
    !(element.labels && element.labels.length) && !element.getAttribute('aria-label') &&
    !element.getAttribute('aria-labelledby') && !element.textContent.trim()).map(element => element.id);
  const described = [...doc.querySelectorAll('[aria-labelledby], [aria-describedby]')].every(element =>
    doc.getElementById(element.getAttribute('aria-labelledby') || element.getAttribute('aria-describedby')).textContent.trim());
  const phase = doc.getElementById('phase');
  phase.focus();
  const focused = doc.activeElement === phase;
  const press = (key, shiftKey = false) => { const event = new view.KeyboardEvent('keydown',
    { key, shiftKey, bubbles: true, cancelable: true }); phase.dispatchEvent(event); return event.defaultPrevented; };
  const taken = [press('ArrowRight'), press('ArrowUp', true), press('Tab')];
  const moved = [doc.getElementById('sigma_w').value, doc.getElementById('sigma_b').value];
  doc.getElementById('to_edge').click();
  const edge = await said('on the edge of chaos'), atEdge = Number(doc.getElementById('sigma_w_value').value);
  const exact = doc.getElementById('sigma_w_value');
  exact.value = '-3'; exact.dispatchEvent(new view.Event('input', { bubbles: true }));
  const kept = Number(doc.getElementById('sigma_w').value);
  const choice = doc.getElementById('activation');
  choice.value = 'relu'; choice.dispatchEvent(new view.Event('change', { bubbles: true }));
  return { unnamed, described, focused, taken, moved, atEdge, edge, kept, relu: await said('relu'), lang: doc.documentElement.lang,
    live: doc.getElementById('summary').getAttribute('aria-live') };
}

async function everyActivation(doc, wait, said) {
  const view = doc.defaultView, choice = doc.getElementById('activation'), numbers = {};
  for (const option of [...choice.options].map(one => one.value)) {
    choice.value = option; choice.dispatchEvent(new view.Event('change', { bubbles: true }));
    for (const [name, value] of [['sigma_w', '1.9'], ['sigma_b', '0.3'], ['depth', '200'], ['start', '-0.9']]) {
      const range = doc.getElementById(name);
      range.value = value; range.dispatchEvent(new view.Event('input', { bubbles: true }));
    }
    await said(option + ' with σw = 1.9 and σb = 0.3');
    numbers[option] = [...doc.querySelectorAll('#tiles dd')].map(dd => dd.textContent);
  }
  return { numbers, bad: [...doc.querySelectorAll('svg *')].filter(element =>
    [...element.attributes].some(attribute => /NaN|undefined/.test(attribute.value))).length };
}

/* Runs one of them in the page of the frame; what it finds, or its error, becomes the document's text. */
function run(check) {
  addEventListener("load", async () => {
    const doc = document.getElementById("frame").contentDocument;
    const wait = ms => new Promise(done => setTimeout(done, ms));
    const said = async text => {
      for (let i = 0; i < 200; i++) {
        await wait(50);
        const now = doc.getElementById("summary").textContent;
        if (now.includes(text)) return now;
      }
      throw Error(`the page never said ${text}`);
    };
    let found;
    try {
      await said(" is ");
      found = await check(doc, wait, said);
    } catch (error) { found = { error: String(error) }; }
    document.getElementById("found").textContent = JSON.stringify(found);
  });
}
