import { defineConfig } from "vite";

// The service serves what is built here at `/`; relative addresses let it stand behind a path prefix too.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../src/vegamite_api/static",
    emptyOutDir: true,
    target: "es2022",
  },
  server: {
    proxy: { "/v1": { target: "http://127.0.0.1:8000", ws: true } },
  },
});
