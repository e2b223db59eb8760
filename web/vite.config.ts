import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// Warnings of the Svelte compiler, accessibility faults among them, fail the build.
export default defineConfig({
  plugins: [
    svelte({
      configFile: false,
      onwarn(warning) {
        throw new Error(`${warning.code}: ${warning.message} (${warning.filename})`);
      },
    }),
  ],
  build: { target: 'es2022', outDir: 'dist', assetsInlineLimit: 0, chunkSizeWarningLimit: 4000, sourcemap: false },
  server: { proxy: { '/api': 'http://127.0.0.1:8750' } },
});
