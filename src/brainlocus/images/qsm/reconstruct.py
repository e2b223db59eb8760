"""From a gradient-echo series to susceptibility and T2*: the stages in their order.

Data flow::

    GradientEcho, brain mask
      --remove_phase_offset-->  phase in proportion to the echo time, total field without wraps
      --phase_reliability-->    mask 2: reliable phase only
      --unwrap, combine-->      total field (ppm) and its noise
      --remove_background_field--> local field, mask 3
      --invert_dipole-->        susceptibility (ppm), unreferenced
      --reference-->            susceptibility relative to fluid
    magnitude --fit_r2star-->   R2*, T2*; --through_slice_gradient--> what the field's slope across a slice adds to R2*

`QsmSettings` holds the choice of every stage. `PRESETS` has two: ``ukb`` follows the UK Biobank pipeline (Laplacian
unwrapping, V-SHARP, iLSQR), ``consensus`` the recommendations of the QSM consensus (exact unwrapping after offset removal,
and an inversion with a sparsity prior).

References
----------
Wang et al. (2022), Nat Neurosci 25:818; QSM Consensus (2024), Magn Reson Med 91:1834.
"""
