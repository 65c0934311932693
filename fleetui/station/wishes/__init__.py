"""What people ask for: kinds of wishes (``kinds``), and the office that carries them out (``office``)."""
