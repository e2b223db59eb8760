"""Dipole inversions read literally: whole complex spectra in double precision, every copy and dual by name."""

import numpy as np


def taper(cycles):
    """What oblique terms are multiplied by: see `brainlocus.numerics.dipole`."""
    if abs(cycles) <= 0.3:
        return 1.0
    return np.cos(np.pi / 2 * (abs(cycles) - 0.3) / 0.2) ** 2


def naive_kernel(shape, voxel_size_mm, b0_direction):
    """D on the whole spectrum, point by point; for boxes of odd length, where no frequency is its own mirror."""
    kernel = np.zeros(shape)
    frequencies = [np.fft.fftfreq(n, d=h) for n, h in zip(shape, voxel_size_mm, strict=True)]
    for index in np.ndindex(*shape):
        k = np.array([frequencies[a][i] for a, i in enumerate(index)])
        if k.any():
            along = 0.0
            for a in range(3):
                for b in range(3):
                    ends = taper(voxel_size_mm[a] * k[a]) * taper(voxel_size_mm[b] * k[b]) if a != b else 1.0
                    along += b0_direction[a] * b0_direction[b] * k[a] * k[b] * ends
            kernel[index] = 1 / 3 - along / (k @ k)
    return kernel


def convolve(kernel, image):
    return np.fft.ifftn(kernel * np.fft.fftn(image)).real


def gradient(image, sizes):
    return [(np.roll(image, -1, axis=a) - image) / h for a, h in enumerate(sizes)]


def adjoint_gradient(parts, sizes):
    return sum((np.roll(p, 1, axis=a) - p) / h for a, (p, h) in enumerate(zip(parts, sizes, strict=True)))


def naive_tkd(field, kernel, threshold):
    inverse = np.where(np.abs(kernel) > threshold, 1 / np.where(kernel == 0, 1, kernel), np.sign(kernel) / threshold)
    return convolve(inverse, field)


def shrink(parts, threshold, isotropic):
    if isotropic:
        size = np.sqrt(sum(p**2 for p in parts))
        share = np.maximum(size - threshold, 0) / np.where(size > 0, size, 1)
        return [share * p for p in parts]
    return [np.sign(p) * np.maximum(np.abs(p) - threshold, 0) for p in parts]


def naive_published_tv(field, kernel, sizes, lam, n_iterations):
    """Bilgic et al. (2014): z = grad chi, rho = 100 lambda."""
    rho = 100 * lam
    energy = np.zeros(field.shape)
    for a, h in enumerate(sizes):
        n = field.shape[a]
        symbol = (2 - 2 * np.cos(2 * np.pi * np.arange(n) / n)) / h**2
        energy = energy + symbol.reshape([-1 if b == a else 1 for b in range(3)])
    z = [np.zeros(field.shape)] * 3
    u = [np.zeros(field.shape)] * 3
    denominator = kernel**2 + rho * energy
    denominator[0, 0, 0] = np.inf
    chi = np.zeros(field.shape)
    for _ in range(n_iterations):
        right = kernel * np.fft.fftn(field) + rho * np.fft.fftn(
            adjoint_gradient([a - b for a, b in zip(z, u, strict=True)], sizes)
        )
        chi = np.fft.ifftn(right / denominator).real
        total = [g + b for g, b in zip(gradient(chi, sizes), u, strict=True)]
        z = shrink(total, lam / rho, False)
        u = [t - a for t, a in zip(total, z, strict=True)]
    return chi


def naive_objective(chi, field, mask, kernel, sizes, lam, tau, weight=None, edges=1.0):
    """What tv.py minimises."""
    squared = mask.astype(float) if weight is None else weight
    misfit = 0.5 * float((squared * (convolve(kernel, chi) - field) ** 2).sum())
    length = np.sqrt(sum(g**2 for g in gradient(chi, sizes)))
    return misfit + lam * float((edges * length).sum()) + 0.5 * tau * float((chi[~mask] ** 2).sum())


def dense(operator, shape):
    """Return the matrix of a linear function of images."""
    columns = []
    for index in np.ndindex(*shape):
        unit = np.zeros(shape)
        unit[index] = 1
        columns.append(operator(unit).ravel())
    return np.array(columns).T


def naive_conjugate_gradients(matrix, right, n_iterations):
    x = np.zeros_like(right)
    r = right.copy()
    p = r.copy()
    for _ in range(n_iterations):
        q = matrix @ p
        step = (r @ r) / (p @ q)
        x = x + step * p
        new = r - step * q
        p = new + (new @ new) / (r @ r) * p
        r = new
    return x
