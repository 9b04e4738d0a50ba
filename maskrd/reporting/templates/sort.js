// A click on a heading, or Enter, sorts its column within each group of rows. Without JavaScript tables are as they are.
for (const table of document.querySelectorAll("table.sortable, table.grid")) {
  const headings = [...table.tHead.rows].at(-1).cells;
  [...headings].forEach((heading) => {
    heading.classList.add("sorts");
    heading.tabIndex = 0;
    heading.scope = "col";
    heading.addEventListener("click", () => sort(table, heading));
    heading.addEventListener("keydown", (event) => {
      if (event.key === "Enter") sort(table, heading);
    });
  });
}
function sort(table, heading) {
  const down = heading.getAttribute("aria-sort") !== "descending";
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const fromEnd = heading.parentNode.cells.length - heading.cellIndex;
  for (const body of table.tBodies) {
    const group = body.querySelector("th.block");
    const rows = [...body.rows];
    rows.sort((a, b) => compare(text(a, fromEnd), text(b, fromEnd)) * (down ? -1 : 1));
    if (group) rows[0].prepend(group);
    body.append(...rows);
  }
}
function text(row, fromEnd) {
  return row.cells[row.cells.length - fromEnd]?.textContent.trim() ?? "";
}
function compare(a, b) {
  const [x, y] = [a, b].map((value) => parseFloat(value.replace("−", "-")));
  if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) && Number.isNaN(y) ? a.localeCompare(b) : Number.isNaN(x) ? -1 : 1;
  return x - y;
}
