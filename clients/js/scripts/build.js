/**
 * Builds the generated files of the package: node scripts/build.js OPENAPI, a file or URL of the server's OpenAPI document. Writes `types/`.
 *
 * The packages that this needs are in the folder COUPLE_TEST_CLIENTS, which tests/clients/install fills. They are not installed here, so
 * that the folder has no generated files but `types/`.
 */

import { execFile } from "node:child_process";
import { cp, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const here = fileURLToPath(new URL("..", import.meta.url));

const COMPILER = {
  allowJs: true,
  checkJs: true,
  strict: true,
  noUnusedLocals: true,
  noFallthroughCasesInSwitch: true,
  target: "es2022",
  module: "nodenext",
  lib: ["es2023", "dom", "dom.iterable"],
  types: ["node"],
};

/**
 * Runs a program of the installed packages.
 * @param {string} folder
 * @param {string} name
 * @param {string[]} args
 */
export async function run(folder, name, args) {
  const command = join(folder, "node_modules/.bin", name);
  const { stdout } = await promisify(execFile)(command, args, { cwd: folder }).catch((error) => {
    throw new Error(`${name} failed:\n${error.stdout}${error.stderr}`);
  });
  return stdout;
}

/**
 * Copies the package into a temporary folder that has the installed packages, and generates its types there.
 * @param {string} openapi file or URL of the OpenAPI document
 * @returns {Promise<string>} the folder
 */
export async function build(openapi) {
  const packages = process.env.COUPLE_TEST_CLIENTS;
  if (!packages) throw new Error("COUPLE_TEST_CLIENTS is not set: tests/clients/install FOLDER, then set it to FOLDER");
  const folder = await mkdtemp(join(tmpdir(), "couple-client-"));
  for (const name of ["package.json", "src", "scripts", "test"]) await cp(join(here, name), join(folder, name), { recursive: true });
  await symlink(join(packages, "node_modules"), join(folder, "node_modules"));
  await run(folder, "openapi-typescript", [openapi, "--output", "types/openapi.d.ts"]);
  const declarations = { ...COMPILER, declaration: true, emitDeclarationOnly: true, outDir: "types" };
  await writeFile(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: declarations, include: ["src"] }));
  await run(folder, "tsc", ["--project", "."]);
  return folder;
}

/**
 * Checks the types of the tests and of the demo, which use the package as an app does.
 * @param {string} folder
 */
export async function checkTests(folder) {
  await cp(join(here, "test-browser"), join(folder, "test-browser"), { recursive: true });
  await cp(join(here, "../../examples/server/pages/demo"), join(folder, "pages/demo"), { recursive: true });
  // The server has the client beside the demo.
  await symlink(join(folder, "src"), join(folder, "pages/client"));
  await symlink(join(folder, "types"), join(folder, "pages/types"));
  const options = { ...COMPILER, target: "es2024", noEmit: true };
  const include = ["scripts", "test", "test-browser", "pages/demo"];
  await writeFile(join(folder, "tsconfig.test.json"), JSON.stringify({ compilerOptions: options, include }));
  await run(folder, "tsc", ["--project", "tsconfig.test.json"]);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [openapi] = process.argv.slice(2);
  if (!openapi) throw new Error("usage: node scripts/build.js OPENAPI");
  const folder = await build(openapi);
  await rm(join(here, "types"), { recursive: true, force: true });
  await cp(join(folder, "types"), join(here, "types"), { recursive: true });
  await rm(folder, { recursive: true });
}
