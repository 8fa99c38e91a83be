"""The course workbook: questions, the evidence for their answers, and what is generated from both."""
