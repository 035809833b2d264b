"""What every public function needs: argument checks, guards, isolation of a caller's models."""
