// Checks the console in headless Chromium: `node check.mjs NODE_MODULES CHROMIUM URL`, with TOKEN, OTHER_TOKEN, APP, GROUP and
// HANDLE in the environment. tests/it/console.rs starts it, commits to the group meanwhile, and revokes the token when asked.
// With CONSOLE_SHOTS=DIRECTORY, it keeps screenshots.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [, , modules, executablePath, url] = process.argv;
const { TOKEN, OTHER_TOKEN, APP, GROUP, HANDLE, CONSOLE_SHOTS } = process.env;
const { default: puppeteer } = await import(pathToFileURL(createRequire(`${modules}/`).resolve("puppeteer-core")));
const browser = await puppeteer.launch({ executablePath, headless: true, args: ["--no-sandbox", "--disable-dev-shm-usage"] });

const requested = [];
const complaints = [];
const opened = [];
/** Statuses that a test provokes, which the browser reports as errors. */
const provoked = /Failed to load resource: .*(400|401|404|ERR_FAILED)/;

async function open({ width = 1280, height = 900, scheme = "light", isMobile = false } = {}) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  opened.push(page);
  page.setDefaultTimeout(30_000);
  await page.setViewport({ width, height, isMobile });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }, { name: "prefers-reduced-motion", value: "reduce" }]);
  page.on("request", (request) => requested.push(request));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    if (["error", "warn"].includes(message.type()) && !provoked.test(message.text())) complaints.push(message.text());
  });
  await page.exposeFunction("complain", (violation) => complaints.push(violation));
  await page.evaluateOnNewDocument(() => {
    addEventListener("securitypolicyviolation", (event) => window.complain(`${event.violatedDirective}: ${event.blockedURI}`));
  });
  await page.goto(`${url}/`, { waitUntil: "load" });
  await page.waitForSelector("#token");
  return page;
}

const text = (page, selector) => page.$eval(selector, (element) => element.textContent.trim());
const until = (page, condition, ...values) => page.waitForFunction(condition, { polling: 100 }, ...values);

async function signIn(page) {
  await page.type("#token", TOKEN);
  await page.keyboard.press("Enter");
  await page.waitForSelector(".overview");
}

async function go(page, hash, ready) {
  await page.evaluate((hash) => { location.hash = hash; }, hash);
  await page.waitForSelector(ready);
}

/** Every landmark is there, and every control has a name, as screen readers get them. */
async function checkTree(page, view) {
  const session = await page.createCDPSession();
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  await session.detach();
  const shown = nodes.filter((node) => !node.ignored);
  const of = (...roles) => shown.filter((node) => roles.includes(node.role?.value));
  for (const node of of("button", "link", "textbox", "searchbox", "checkbox", "combobox", "table", "region", "navigation")) {
    assert.ok(node.name?.value, `${view}: a ${node.role.value} has no name`);
  }
  assert.equal(of("main").length, 1, `${view}: one main`);
  assert.equal(of("banner").length, 1, `${view}: one banner`);
  assert.equal(of("heading").filter((node) => node.properties.some(({ name, value }) => name === "level" && value.value === 1)).length, 1, `${view}: one heading of level 1`);
  const unlabelled = await page.$$eval("table", (tables) => tables.filter((table) => !table.querySelector("thead th[scope=col]") || !table.caption).length);
  assert.equal(unlabelled, 0, `${view}: tables have headers and captions`);
}

/** Every text has a contrast of 4.5 to its background, or 3 if it is large (WCAG 2.2, 1.4.3). */
async function checkContrast(page, view) {
  const [poor, looked] = await page.evaluate(() => {
    const parse = (colour) => {
      const [red, green, blue, alpha = 1] = colour.match(/-?[\d.]+(?:e-?\d+)?/g).map(Number);
      return (colour.startsWith("color(") ? [red * 255, green * 255, blue * 255] : [red, green, blue]).concat(alpha);
    };
    const over = (top, bottom) => [0, 1, 2].map((place) => top[place] * top[3] + bottom[place] * (1 - top[3])).concat(1);
    const luminance = (colour) => {
      const [red, green, blue] = colour.map((part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const opacity = (element) => (element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1);
    const background = (element) => {
      if (!element) return [255, 255, 255, 1];
      const own = parse(getComputedStyle(element).backgroundColor);
      return own[3] === 1 ? own : over(own, background(element.parentElement));
    };
    const found = [];
    let looked = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement;
      if (!node.textContent.trim() || !element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true }) || element.closest(".unseen, :disabled, noscript, .skip")) continue;
      const style = getComputedStyle(element);
      const back = background(element);
      const [red, green, blue, alpha] = parse(style.color);
      const [one, other] = [luminance(over([red, green, blue, alpha * opacity(element)], back)), luminance(back)];
      const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
      const size = parseFloat(style.fontSize);
      const wanted = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
      looked += 1;
      if (ratio < wanted) found.push(`${ratio.toFixed(2)}: ${node.textContent.trim().slice(0, 40)}`);
    }
    return [found, looked];
  });
  assert.ok(looked > 5, `${view}: ${looked} texts`);
  assert.deepEqual(poor, [], `${view}: texts with little contrast`);
}

async function checkView(page, view, name) {
  await checkTree(page, view);
  await checkContrast(page, view);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `${view}: ${wide} px are cut off`);
  if (CONSOLE_SHOTS) await page.screenshot({ path: `${CONSOLE_SHOTS}/${name}-${view}.png`, fullPage: true });
}

const checks = {
  async "a wrong token is refused, and not kept"() {
    const page = await open();
    await until(page, () => document.getElementById("health").textContent === "Ready");
    for (const wrong of ["wrong", OTHER_TOKEN, "ä ö"]) {
      await page.$eval("#token", (input) => { input.value = ""; });
      await page.type("#token", wrong);
      await page.keyboard.press("Enter");
      await until(page, () => document.getElementById("token-error").textContent === "The gateway does not accept this token." && !document.querySelector("button.primary").disabled);
      await page.$eval("#token-error", (error) => { error.textContent = ""; });
      assert.equal(await page.evaluate(() => document.activeElement.id), "token");
    }
    assert.equal(await page.$("nav a"), null, "nothing is shown");
    await page.close();
  },

  async "numbers change as members commit"() {
    const page = await open();
    await signIn(page);
    await until(page, () => document.getElementById("connection").textContent === "Live");
    await until(page, () => Number(document.querySelector(".tile .value").textContent) > 0);
    const epoch = () => page.$$eval("table td.number", (cells) => Number(cells[0].textContent.replace(/,/g, "")));
    await page.waitForSelector(".id-link");
    assert.equal(await text(page, ".id-link"), GROUP);
    const before = await epoch();
    await until(page, (before) => Number(document.querySelector("table td.number").textContent.replace(/,/g, "")) > before, before);
    await until(page, () => [...document.querySelectorAll(".tile polyline")].filter((line) => line.getAttribute("points").split(" ").length > 2).length >= 8);
    assert.match(await page.$eval(".overview", (view) => view.textContent), /Last backup(no backup|.* ago)/);
    assert.equal(await text(page, "#announcement"), "", "samples are not read out");
    await page.close();
  },

  async "a group's timeline, by pages"() {
    const page = await open();
    await signIn(page);
    await go(page, `#/groups/${APP}/${GROUP}`, ".timeline tbody tr");
    const epochs = () => page.$$eval(".timeline tbody th", (cells) => cells.map((cell) => Number(cell.textContent)));
    const first = await epochs();
    assert.equal(first.length, 50);
    first.forEach((epoch, place) => assert.equal(epoch, first[0] - place));
    assert.match(await page.$eval(".timeline tbody tr", (row) => row.textContent), /\d\d:\d\d:\d\d\.\d{3}.*leaf 0.* B/);
    await page.click(".timeline .pager button");
    await until(page, () => document.querySelector(".timeline tbody tr:last-child th").textContent === "1");
    const all = await epochs();
    all.forEach((epoch, place) => assert.equal(epoch, all[0] - place));
    // It goes on, and keeps what was opened.
    await page.evaluate(() => document.activeElement.blur());
    await until(page, (newest) => Number(document.querySelector(".timeline tbody th").textContent) > newest, all[0]);
    const later = await epochs();
    assert.equal(later.at(-1), 1);
    later.forEach((epoch, place) => assert.equal(epoch, later[0] - place));
    await page.close();
  },

  async "losers of a race are shown where the gateway names them"() {
    const page = await open();
    await page.setRequestInterception(true);
    page.on("request", async (request) => {
      if (!request.url().includes("/epochs?")) return request.continue();
      const epoch = { epochId: 2, timestamp: 1_800_000_000_000, committerLeafIndex: 0, commitBytes: 700, proposals: 0 };
      const losers = [{ leafIndex: 3, at: 1_800_000_000_004 }, { at: 1_800_000_000_020 }];
      return request.respond({ status: 200, contentType: "application/json", body: JSON.stringify({ epochs: [{ ...epoch, losers }, { ...epoch, epochId: 1 }] }) });
    });
    await signIn(page);
    await go(page, `#/groups/${APP}/${GROUP}`, ".losers");
    assert.deepEqual(await page.$$eval(".losers li", (items) => items.map((item) => item.textContent)), ["leaf 3 +4 ms", "external +20 ms"]);
    await page.close();
  },

  async "handles are text, whatever they are"() {
    const page = await open();
    await signIn(page);
    await until(page, (handle) => [...document.querySelectorAll(".handle")].some((found) => found.textContent === handle), HANDLE);
    await go(page, `#/clients/${APP}`, "tbody tr");
    const handles = await page.$$eval("tbody th", (cells) => cells.map((cell) => cell.textContent));
    assert.ok(handles.includes(HANDLE), handles.join("\n"));
    assert.equal(await page.$$eval("main script, main img", (elements) => elements.length), 0);
    assert.match(await page.title(), /^Clients/);
    await page.close();
  },

  async "the keyboard is enough"() {
    const page = await open();
    await page.keyboard.type(TOKEN);
    await page.keyboard.press("Enter");
    await page.waitForSelector(".overview");
    const focused = () => page.evaluate(() => ({ name: document.activeElement.textContent.trim(), outline: getComputedStyle(document.activeElement).outlineStyle, tag: document.activeElement.tagName }));
    async function tabTo(wanted) {
      for (let presses = 0; presses < 40; presses += 1) {
        await page.keyboard.press("Tab");
        const { name, outline, tag } = await focused();
        if (tag !== "BODY") assert.notEqual(outline, "none", `the focus on ${name || tag} is visible`);
        if (wanted.test(name)) return;
      }
      assert.fail(`${wanted} cannot be reached`);
    }
    const heading = (wanted) => until(page, (wanted) => document.activeElement.tagName === "H1" && document.activeElement.textContent.startsWith(wanted), wanted);
    await heading("Overview");
    await page.evaluate(() => document.activeElement.blur());
    await tabTo(/^Skip to the content$/);
    await tabTo(/^Groups$/);
    await page.keyboard.press("Enter");
    await heading("Groups");
    await page.waitForSelector("#group-id");
    await page.focus("#group-id");
    await page.keyboard.type(GROUP);
    await page.keyboard.press("Enter");
    await heading(`Group ${GROUP}`);
    await page.waitForSelector(".timeline");
    await tabTo(/^Older epochs$/);
    await page.keyboard.press("Enter");
    await until(page, () => document.querySelectorAll(".timeline tbody tr").length > 50);
    await page.close();
  },

  async "a group that is not there, and one that is none"() {
    const page = await open();
    await signIn(page);
    for (const [id, title] of [["AAEC", "Unknown group"], ["%3Cscript%3E", "Malformed request"]]) {
      await go(page, `#/groups/${APP}/${id}`, ".failure");
      assert.equal(await text(page, ".failure .empty-title"), title);
      await page.evaluate(() => { location.hash = "#/peers"; });
      await page.waitForSelector(".empty");
    }
    await page.close();
  },

  async "a lost connection is told and mended"() {
    const page = await open();
    let isCut = true;
    await page.setRequestInterception(true);
    page.on("request", (request) => (isCut && request.url().endsWith("/activity") ? request.abort() : request.continue()));
    await signIn(page);
    await until(page, () => !document.getElementById("notice").hidden);
    assert.match(await text(page, "#notice"), /Connection lost\..*Next try in/);
    assert.match(await text(page, "#announcement"), /^The connection is lost/);
    await checkContrast(page, "lost");
    if (CONSOLE_SHOTS) await page.screenshot({ path: `${CONSOLE_SHOTS}/1280-light-lost.png` });
    isCut = false;
    await page.evaluate(() => document.querySelector("#notice button").click());
    await until(page, () => document.getElementById("connection").textContent === "Live" && document.getElementById("notice").hidden);
    assert.equal(await text(page, "#announcement"), "The connection is back.");
    await page.close();
  },

  async "every view, light and dark, on a desktop and a phone"() {
    for (const size of [{ width: 1280, height: 900 }, { width: 390, height: 844, isMobile: true }]) {
      for (const scheme of ["light", "dark"]) {
        const page = await open({ ...size, scheme });
        const name = `${size.width}-${scheme}`;
        await checkView(page, "sign-in", name);
        await signIn(page);
        await until(page, () => document.querySelector(".tile .value").textContent !== "–" && document.querySelector(".id-link"));
        await checkView(page, "overview", name);
        for (const [view, hash, ready] of [
          ["applications", "#/applications", "tbody tr"],
          ["groups", `#/groups/${APP}`, "tbody tr"],
          ["group", `#/groups/${APP}/${GROUP}`, ".timeline tbody tr"],
          ["clients", `#/clients/${APP}`, "tbody tr"],
          ["peers", "#/peers", ".empty"],
        ]) {
          await go(page, hash, ready);
          await checkView(page, view, name);
        }
        await page.close();
      }
    }
  },

  async "the token is kept for the tab if the operator wants that, and nowhere else"() {
    const page = await open();
    await page.type("#token", TOKEN);
    await page.click("#for-tab");
    await page.click("button.primary");
    await page.waitForSelector(".overview");
    await page.reload({ waitUntil: "load" });
    await page.waitForSelector(".overview");
    await page.click("#sign-out");
    await page.waitForSelector("#token");
    await page.reload({ waitUntil: "load" });
    await page.waitForSelector("#token");
    assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length), 0);
    await page.close();
  },

  async "a token that is revoked is asked for again"() {
    const page = await open();
    await signIn(page);
    await until(page, () => document.getElementById("connection").textContent === "Live");
    console.log("please revoke the token");
    await page.waitForSelector("#token");
    assert.match(await text(page, "#token-error"), /no longer accepts the token/);
    assert.equal(await page.$eval("#navigation", (navigation) => navigation.hidden), true);
    await page.close();
  },
};

let failures = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    assert.deepEqual(complaints.splice(0), [], "complaints of the browser");
    console.log(`ok: ${name}`);
  } catch (error) {
    failures += 1;
    console.log(`failed: ${name}: ${error.stack}`);
    for (const page of opened) {
      if (!page.isClosed()) console.log(await page.evaluate(() => `${location.hash}\n${document.body.innerText}`).catch(String));
    }
  }
}
for (const request of requested) {
  assert.ok(!request.url().includes(TOKEN), "the token is in a URL");
  assert.ok(request.url().startsWith(url), `${request.url()} is elsewhere`);
  const isShown = request.url().includes("/operator/v1/");
  assert.equal(request.headers().authorization !== undefined, isShown, `${request.url()}: the token is sent with the API alone`);
}
await browser.close();
console.log(failures === 0 ? `all of ${Object.keys(checks).length} checks, ${requested.length} requests` : `${failures} failed`);
process.exit(failures === 0 ? 0 : 1);
