"""From speech windows to emotions: MFCC, ONNX model, tracker."""
