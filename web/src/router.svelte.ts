/** Every view has an address; links are ordinary links. */

class Route {
  path = $state(window.location.pathname);
  query = $state(new URLSearchParams(window.location.search));

  constructor() {
    window.addEventListener('popstate', () => this.read());
    document.addEventListener('click', (event) => {
      if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      const link = (event.target as Element | null)?.closest('a');
      if (!link || link.target || link.hasAttribute('download') || link.origin !== window.location.origin) return;
      if (link.pathname.startsWith('/api/') || link.pathname === '/openapi.json') return;
      if (link.hash && link.pathname === window.location.pathname) return;
      event.preventDefault();
      this.go(link.pathname + link.search);
    });
  }

  private read(): void {
    this.path = window.location.pathname;
    this.query = new URLSearchParams(window.location.search);
  }

  go(address: string): void {
    window.history.pushState(null, '', address);
    this.read();
    window.scrollTo(0, 0);
    document.getElementById('main')?.focus({ preventScroll: true });
  }

  /** Change the query in place: the state of a view, not a new page. */
  set(values: Record<string, string | null>): void {
    const query = new URLSearchParams(this.query);
    for (const [name, value] of Object.entries(values)) {
      if (value === null) query.delete(name);
      else query.set(name, value);
    }
    const text = query.toString();
    window.history.replaceState(null, '', window.location.pathname + (text ? `?${text}` : ''));
    this.query = query;
  }
}

export const route = new Route();
