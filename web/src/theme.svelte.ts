/** Light or dark, and the colours that canvases need as values. */

export type Theme = 'light' | 'dark';

function stored(): Theme | null {
  try {
    const value = window.localStorage.getItem('theme');
    return value === 'light' || value === 'dark' ? value : null;
  } catch {
    return null;
  }
}

class ThemeState {
  current = $state<Theme>(stored() ?? (window.matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'));

  constructor() {
    document.documentElement.dataset.theme = this.current;
  }

  toggle(): void {
    this.current = this.current === 'dark' ? 'light' : 'dark';
    document.documentElement.dataset.theme = this.current;
    try {
      window.localStorage.setItem('theme', this.current);
    } catch {
      // Private windows may refuse storage; the switch still works for this page.
    }
  }

  get ink() {
    return this.current === 'dark' ? DARK : LIGHT;
  }
}

const LIGHT = {
  surface: '#ffffff',
  ink: '#17212b',
  muted: '#56616c',
  line: '#d5d8d6',
  grid: '#eceeec',
  even: '#1d5f92',
  odd: '#6f93b0',
  hit: '#b8500a',
  guide: '#8a5a2b',
  band: '#e3e9ee',
  focus: '#b8500a',
};
const DARK: typeof LIGHT = {
  surface: '#151d25',
  ink: '#e7ecf0',
  muted: '#a3b0bc',
  line: '#33404c',
  grid: '#222c36',
  even: '#6cb6e8',
  odd: '#4f7d9e',
  hit: '#f5a55a',
  guide: '#c99a6b',
  band: '#263440',
  focus: '#f5a55a',
};

export const theme = new ThemeState();
