// Makes what is shown like the news by the fewest changes, so that focus, scrolling and a selection stay.

// What a visitor opened or closed is theirs, whatever the news say.
const own = (node, name) => name === "open" && node.nodeName === "DETAILS";

export function morph(shown, news) {
  if (shown.isEqualNode(news)) return;
  if (shown.nodeType !== Node.ELEMENT_NODE) {
    if (shown.nodeValue !== news.nodeValue) shown.nodeValue = news.nodeValue;
    return;
  }
  for (const { name } of [...shown.attributes]) {
    if (!news.hasAttribute(name) && !own(shown, name)) shown.removeAttribute(name);
  }
  for (const { name, value } of news.attributes) {
    if (shown.getAttribute(name) !== value && !own(shown, name)) shown.setAttribute(name, value);
  }
  let place = shown.firstChild;
  for (const child of [...news.childNodes]) {
    const match = find(place, child);
    if (match) {
      if (match !== place) shown.insertBefore(match, place);
      else place = place.nextSibling;
      morph(match, child);
    } else {
      shown.insertBefore(document.importNode(child, true), place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

// The node from `place` on that `child` is about: of the same id, or for want of ids the next of its kind.
function find(place, child) {
  if (child.id) {
    for (let one = place; one; one = one.nextSibling) if (one.id === child.id && one.nodeName === child.nodeName) return one;
    return null;
  }
  return place && place.nodeName === child.nodeName && !place.id ? place : null;
}
